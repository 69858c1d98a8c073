"""Inputs that one HTTP request has embedded, sent together: vLLM's server hands them over one by one."""

from __future__ import annotations

import asyncio
import uuid
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sage_client import EmbedOptions, SageError
from sage_gateway.caller_clients import CallerClients
from sage_gateway.http_call import HttpCall
from sage_gateway.trace_context import trace_of

CALL_INPUTS = 256
"""Most inputs of one call of ``embed``; further ones go into calls beside it."""


@dataclass(slots=True)
class _Batch:
    """Inputs of one HTTP request that were handed over in one turn of the event loop."""

    call: HttpCall
    options: EmbedOptions
    inputs: list[list[int]] = field(default_factory=list)
    vectors: list[asyncio.Future[array[float]]] = field(default_factory=list)


class InputBatches:
    """Collects the inputs of each HTTP request, and embeds them.  Belongs to one event loop."""

    def __init__(self, clients: CallerClients) -> None:
        self._clients = clients
        self._open: dict[int, _Batch] = {}  # by identity of the HTTP call, which the batch keeps alive

    async def vector(self, call: HttpCall, token_ids: list[int], options: EmbedOptions) -> array[float]:
        """Return the vector of one input.  All inputs of ``call`` have the same ``options``.  Raises SageError."""
        loop = asyncio.get_running_loop()
        batch = self._open.get(id(call))
        if batch is None:
            batch = self._open[id(call)] = _Batch(call, options)
            loop.call_soon(self._begin, batch)
        vector: asyncio.Future[array[float]] = loop.create_future()
        batch.inputs.append(token_ids)
        batch.vectors.append(vector)
        return await vector

    def _begin(self, batch: _Batch) -> None:
        """Embed what was handed over, CALL_INPUTS inputs at a time."""
        del self._open[id(batch.call)]
        for start in range(0, len(batch.inputs), CALL_INPUTS):
            wanted = batch.vectors[start : start + CALL_INPUTS]
            inputs = batch.inputs[start : start + CALL_INPUTS]
            working = asyncio.ensure_future(self._embed(batch, inputs, wanted))
            for vector in wanted:
                vector.add_done_callback(partial(_stop_unwanted, wanted, working))

    async def _embed(
        self, batch: _Batch, inputs: list[list[int]], wanted: Sequence[asyncio.Future[array[float]]]
    ) -> None:
        options = EmbedOptions(
            **{**batch.options, "request_id": batch.call.next_request_id(f"pool-{uuid.uuid4().hex}")}
        )
        try:
            with self._clients.of(batch.call.token) as client, trace_of(batch.call):
                made = await client.embed(inputs, **options)
        except BaseException as error:  # whoever waits must not wait for ever
            for vector in wanted:
                if isinstance(error, Exception) and not vector.done():
                    vector.set_exception(error)
                vector.cancel()
            if not isinstance(error, SageError):
                raise
            return
        batch.call.cost += made.cost
        for vector, found in zip(wanted, made.vectors, strict=True):
            if not vector.done():
                vector.set_result(found)


def _stop_unwanted(
    wanted: Sequence[asyncio.Future[array[float]]], working: asyncio.Future[None], _: asyncio.Future[array[float]]
) -> None:
    """Cancel a call that nobody waits for any more."""
    if all(vector.cancelled() for vector in wanted):
        working.cancel()
