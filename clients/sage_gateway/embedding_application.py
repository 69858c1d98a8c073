"""Answers for one model that embeds: /v1/embeddings by the SDK's ``embed``, the rest by vLLM's server."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import uuid
from array import array
from typing import Any

from sage_client import Embeddings, Model, SageError
from sage_gateway.asgi import (
    Application,
    ClientGone,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    read_body,
    replaying,
    while_connected,
)
from sage_gateway.caller_clients import CallerClients
from sage_gateway.embedding_fields import EmbeddingFieldError, EmbeddingFields, Encoding, embedding_fields, is_for_vllm
from sage_gateway.error_answers import HttpError, http_error, invalid
from sage_gateway.http_call import HttpCall, current_call
from sage_gateway.trace_context import trace_of

ROUTE = "/v1/embeddings"
BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""Largest body, as at the front door, which has read it already."""


class EmbeddingApplication:
    """An ASGI application for a model that embeds.

    /v1/embeddings with OpenAI's fields needs no files of the model: the scheduler tokenizes, and a long list of inputs
    is one call.  What only vLLM's server can do, it does.
    """

    def __init__(
        self, model: Model, clients: CallerClients, pooling: Application | None = None, why_not: str = ""
    ) -> None:
        """``pooling``: vLLM's server for the model; None if it cannot be built, ``why_not`` says why."""
        self._model = model
        self._clients = clients
        self.pooling = pooling
        self._why_not = why_not

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that goes away cancels it."""
        body = await read_body(receive, BODY_LIMIT_BYTES)
        call = current_call()
        if scope["path"] != ROUTE or self._model.classifies or is_for_vllm(body):
            await self._by_vllm(scope, replaying(body, receive), send)
            return
        try:
            fields = embedding_fields(body, call.options)
        except EmbeddingFieldError as error:
            await answer_error(send, invalid(str(error), error.param))
            return
        name = json.loads(body).get("model") or self._model.name
        try:
            made = await while_connected(receive, self._embed(call, name, fields))
        except ClientGone:
            return
        except SageError as error:
            await answer_error(send, http_error(error))
            return
        page = await asyncio.to_thread(_page, made, name, fields.encoding)  # may be tens of megabytes
        await answer(send, 200, page)

    async def _by_vllm(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.pooling is not None:
            await self.pooling(scope, receive, send)
            return
        what = f"model {self._model.name!r} has no {scope['path']} here: {self._why_not}"
        await answer_error(send, HttpError(status=501, kind="not_implemented_error", message=what, param="model"))

    async def _embed(self, call: HttpCall, name: str, fields: EmbeddingFields) -> Embeddings:
        options = fields.options
        options["model"] = self._model.name
        if name != self._model.name:
            options["adapter"] = name
        options["request_id"] = call.next_request_id(f"embd-{uuid.uuid4().hex}")
        with self._clients.of(call.token) as client, trace_of(call):
            made = await client.embed(fields.inputs, **options)
        call.cost += made.cost
        return made


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
