"""Answers /v1/files: passes files on to the scheduler and back as they come, as the caller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager

from sage_client import AsyncClient, FilePurpose, SageError, StoredFile
from sage_gateway.asgi import BodyTooLarge, Receive, Scope, Send, answer_json, client_gone
from sage_gateway.batches.answering import (
    PAGE,
    answering,
    check_method,
    id_in,
    page_of,
    tenant_of,
    token_of,
    too_large,
    too_late,
)
from sage_gateway.batches.fields import BATCH, file_keep_s, list_fields, own_options
from sage_gateway.batches.objects import file_object, list_object
from sage_gateway.batches.transfers import Transfers
from sage_gateway.batches.upload_form import SILENCE_S, FormError, UploadForm
from sage_gateway.caller_clients import CallerClients
from sage_gateway.error_answers import Refused, invalid
from sage_gateway.http_headers import HttpHeaders

log = logging.getLogger(__name__)

ROUTE = "/v1/files"
CONTENT = "/content"
LIMIT = 10_000
"""Most files of one page."""

UPLOAD_LIMIT_BYTES = 1024 * 1024 * 1024
"""Largest body of an upload; the scheduler's limit of a file is lower as a rule."""

UPLOAD_TIMEOUT_S = 3_600.0
"""Seconds that an upload may take."""

READ_TIMEOUT_S = 300.0
"""Seconds in which the client takes a piece of a download, of at most 1 MiB."""

_NAMES = {
    "keep": "expires_after",
    "filename": "file",
    "content": "file",
    "file_id": "sage.request_id",
    "page_token": "after",
}
"""Names of the contract's fields in OpenAI's form, where they are others."""


class FileRoutes:
    """An ASGI application.  It holds no more of a file than is on its way."""

    def __init__(self, clients: CallerClients) -> None:
        self._clients = clients
        self._transfers = Transfers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request whose path begins with ROUTE."""
        await answering(self._answer(scope, receive, send), send, _NAMES)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        file_id, wants_content = id_in(scope["path"], ROUTE, CONTENT)
        if wants_content:
            check_method(scope, "GET")
            await self._download(scope, file_id, receive, send)
        elif file_id:
            check_method(scope, "GET", "DELETE")
            await (self._get if scope["method"] == "GET" else self._delete)(scope, file_id, send)
        else:
            check_method(scope, "GET", "POST")
            await (self._list(scope, send) if scope["method"] == "GET" else self._upload(scope, receive, send))

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = HttpHeaders(scope["headers"])
        token, options = token_of(scope), own_options(headers)
        try:
            form = UploadForm(headers.get("content-type", ""), receive, UPLOAD_LIMIT_BYTES)
            with self._transfer(token, options.tenant) as client:
                await form.begin()
                _check_purpose(form.fields)
                stored = await client.upload_file(
                    _pieces(form),
                    file_id=options.request_id or None,
                    name=form.file_name,
                    keep=file_keep_s(form.fields),
                    tenant=options.tenant or None,
                    timeout=UPLOAD_TIMEOUT_S,
                )
        except FormError as error:
            raise Refused(invalid(str(error), error.param or None)) from None
        except BodyTooLarge:
            raise too_large(UPLOAD_LIMIT_BYTES) from None
        except TimeoutError as error:
            if isinstance(error, SageError):
                raise
            raise too_late(SILENCE_S) from None
        await answer_json(send, file_object(stored))

    async def _list(self, scope: Scope, send: Send) -> None:
        wanted = list_fields(scope.get("query_string", b""), LIMIT)
        with self._clients.of(token_of(scope)) as client:
            files = client.list_files(
                purpose=_purpose(wanted.purpose),
                after=wanted.after,
                tenant=tenant_of(scope),
                page_size=min(wanted.limit + 1, PAGE),
            )
            page, more = await page_of(files, wanted.limit)
        await answer_json(send, list_object([file_object(each) for each in page], more=more))

    async def _get(self, scope: Scope, file_id: str, send: Send) -> None:
        with self._clients.of(token_of(scope)) as client:
            found = await client.get_file(file_id, tenant=tenant_of(scope))
        await answer_json(send, file_object(found))

    async def _delete(self, scope: Scope, file_id: str, send: Send) -> None:
        with self._clients.of(token_of(scope)) as client:
            await client.delete_file(file_id, tenant=tenant_of(scope))
        await answer_json(send, {"id": file_id, "object": "file", "deleted": True})

    async def _download(self, scope: Scope, file_id: str, receive: Receive, send: Send) -> None:
        tenant = tenant_of(scope)
        with self._transfer(token_of(scope), tenant) as client:
            stored = await client.get_file(file_id, tenant=tenant)
            async with aclosing(client.read_file(file_id, tenant=tenant)) as pieces:
                first = await anext(pieces, b"")  # before the answer begins: an error still gets its status
                await _send_content(stored, first, pieces, receive, send)

    @contextmanager
    def _transfer(self, token: str, tenant: str | None) -> Iterator[AsyncClient]:
        """Give the caller's client for as long as a file is on its way.  Raises TenantLimitError, LimitReachedError.

        ``tenant``: tells callers without a token apart.
        """
        with self._transfers.one(token or f"tenant {tenant or ''}"), self._clients.of(token) as client:
            yield client


async def _pieces(form: UploadForm) -> AsyncGenerator[bytes, None]:
    """Yield the form's file; what its fields say after the file is checked before the file is complete."""
    fields = dict(form.fields)
    async with aclosing(form.pieces()) as pieces:
        async for piece in pieces:
            yield piece
    _check_purpose(form.fields, required=True)
    if file_keep_s(form.fields) != file_keep_s(fields):
        raise FormError("comes after the file; give it before", "expires_after")


def _check_purpose(fields: Mapping[str, str], *, required: bool = False) -> None:
    """Check what the file is for.  Raises FormError."""
    purpose = fields.get("purpose")
    if purpose is None and required:
        raise FormError("is missing", "purpose")
    if purpose not in (None, BATCH):
        raise FormError(f"{purpose[:100]!r} is not what files are taken for; {BATCH!r} is", "purpose")


async def _send_content(
    stored: StoredFile, first: bytes, pieces: AsyncGenerator[bytes, None], receive: Receive, send: Send
) -> None:
    """Send a file as long as it was when it was asked for, until the client goes away.

    A client sees from the length that a file broke off, as it does for one that takes nothing for READ_TIMEOUT_S.
    """
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(stored.size_bytes).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    leaving = asyncio.ensure_future(client_gone(receive))
    left, piece = stored.size_bytes, first
    try:
        while piece and left and not leaving.done():
            body, left = piece[:left], max(0, left - len(piece))
            async with asyncio.timeout(READ_TIMEOUT_S):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            piece = await anext(pieces, b"") if left else b""
        if not left:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except SageError as error:
        log.warning("file %s broke off with %d bytes left: %s", stored.file_id, left, error)
    except TimeoutError:
        what = "file %s broke off with %d bytes left: its client took none for %g s"
        log.warning(what, stored.file_id, left, READ_TIMEOUT_S)
    finally:
        leaving.cancel()


def _purpose(name: str) -> FilePurpose | None:
    if not name:
        return None
    try:
        return FilePurpose(name)
    except ValueError:
        known = ", ".join(each.value for each in FilePurpose if each is not FilePurpose.UNKNOWN)
        raise Refused(invalid(f"purpose: {name[:100]!r} is none of {known}", "purpose")) from None
