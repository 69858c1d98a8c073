"""Answers /v1/embeddings for one model, by the SDK's ``embed``."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import uuid
from array import array
from typing import Any

from sage_client import Embeddings, Model, SageError
from sage_gateway.asgi import Receive, Scope, Send, answer, answer_error, client_gone, read_body
from sage_gateway.caller_clients import CallerClients
from sage_gateway.embedding_fields import EmbeddingFieldError, EmbeddingFields, Encoding, embedding_fields
from sage_gateway.error_answers import http_error, invalid
from sage_gateway.http_call import HttpCall, current_call
from sage_gateway.trace_context import trace_of

ROUTE = "/v1/embeddings"
BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""Largest body, as at the front door, which has read it already."""


class EmbeddingApplication:
    """An ASGI application for a model that embeds.  It needs no files of the model: the scheduler tokenizes."""

    def __init__(self, model: Model, clients: CallerClients) -> None:
        self._model = model
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that goes away cancels it."""
        body = await read_body(receive, BODY_LIMIT_BYTES)
        call = current_call()
        try:
            fields = embedding_fields(body, call.options)
        except EmbeddingFieldError as error:
            await answer_error(send, invalid(str(error), error.param))
            return
        name = json.loads(body).get("model") or self._model.name
        working = asyncio.ensure_future(self._embed(call, name, fields))
        leaving = asyncio.ensure_future(client_gone(receive))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await self._answer(working, name, fields.encoding, send)
        finally:
            leaving.cancel()
            working.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _embed(self, call: HttpCall, name: str, fields: EmbeddingFields) -> Embeddings:
        options = fields.options
        options["model"] = self._model.name
        if name != self._model.name:
            options["adapter"] = name
        options["request_id"] = call.next_request_id(f"embd-{uuid.uuid4().hex}")
        with self._clients.of(call.token) as client, trace_of(call):
            return await client.embed(fields.inputs, **options)

    async def _answer(self, working: asyncio.Future[Embeddings], name: str, encoding: Encoding, send: Send) -> None:
        try:
            made = working.result()
        except SageError as error:
            await answer_error(send, http_error(error))
            return
        page = await asyncio.to_thread(_page, made, name, encoding)  # may be tens of megabytes
        await answer(send, 200, page)


def _page(made: Embeddings, name: str, encoding: Encoding) -> bytes:
    """Return the answer's body."""
    written = _base64 if encoding == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector)}
        for index, vector in enumerate(made.vectors)
    ]
    tokens = made.usage.prompt_tokens
    page: dict[str, Any] = {
        "object": "list",
        "data": data,
        "model": name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return json.dumps(page).encode()


def _base64(vector: array[float]) -> str:
    """Return a vector's little-endian 32-bit floats."""
    if sys.byteorder != "little":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
