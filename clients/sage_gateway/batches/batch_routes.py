"""Answers /v1/batches: passes batches on to the scheduler, as the caller."""

from __future__ import annotations

from sage_gateway.asgi import Receive, Scope, Send, answer_json
from sage_gateway.batches.answering import (
    answering,
    check_method,
    id_in,
    page_of,
    small_body,
    tenant_of,
    token_of,
)
from sage_gateway.batches.fields import batch_fields, list_fields
from sage_gateway.batches.objects import batch_object, list_object
from sage_gateway.caller_clients import CallerClients
from sage_gateway.http_headers import HttpHeaders

ROUTE = "/v1/batches"
CANCEL = "/cancel"
LIMIT = 100
"""Most batches of one page."""

_NAMES = {
    "deadline": "completion_window",
    "keep_result": "output_expires_after",
    "batch_id": "sage.request_id",
    "page_token": "after",
}
"""Names of the contract's fields in OpenAI's form, where they are others."""


class BatchRoutes:
    """An ASGI application.  The scheduler runs batches; the gateway keeps nothing of them."""

    def __init__(self, clients: CallerClients) -> None:
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request whose path begins with ROUTE."""
        await answering(self._answer(scope, receive, send), send, _NAMES)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        batch_id, cancels = id_in(scope["path"], ROUTE, CANCEL)
        if cancels:
            check_method(scope, "POST")
            await self._cancel(scope, batch_id, send)
        elif batch_id:
            check_method(scope, "GET")
            await self._get(scope, batch_id, send)
        else:
            check_method(scope, "GET", "POST")
            await (self._list(scope, send) if scope["method"] == "GET" else self._create(scope, receive, send))

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = token_of(scope)
        fields = batch_fields(await small_body(receive), HttpHeaders(scope["headers"]))
        with self._clients.of(token) as client:
            made = await client.submit_batch(
                fields.input_file_id,
                endpoint=fields.endpoint,
                batch_id=fields.batch_id,
                deadline=fields.window,
                priority=fields.priority,
                metadata=fields.metadata,
                keep_result=fields.keep_s,
                tenant=fields.tenant,
            )
        await answer_json(send, batch_object(made))

    async def _get(self, scope: Scope, batch_id: str, send: Send) -> None:
        with self._clients.of(token_of(scope)) as client:
            found = await client.get_batch(batch_id, tenant=tenant_of(scope))
        await answer_json(send, batch_object(found))

    async def _cancel(self, scope: Scope, batch_id: str, send: Send) -> None:
        with self._clients.of(token_of(scope)) as client:
            cancelled = await client.cancel_batch(batch_id, tenant=tenant_of(scope))
        await answer_json(send, batch_object(cancelled))

    async def _list(self, scope: Scope, send: Send) -> None:
        wanted = list_fields(scope.get("query_string", b""), LIMIT)
        with self._clients.of(token_of(scope)) as client:
            batches = client.list_batches(after=wanted.after, tenant=tenant_of(scope), page_size=wanted.limit + 1)
            page, more = await page_of(batches, wanted.limit)
        await answer_json(send, list_object([batch_object(each) for each in page], more=more))
