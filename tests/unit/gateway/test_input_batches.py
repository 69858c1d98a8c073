"""Inputs of one HTTP request go to the scheduler together."""

from __future__ import annotations

import asyncio
from array import array
from typing import Any, cast

import pytest

from sage_client import AsyncClient, Embeddings, SageError, Usage
from sage_gateway import input_batches
from sage_gateway.caller_clients import CallerClients
from sage_gateway.http_call import HttpCall
from sage_gateway.input_batches import InputBatches
from sage_gateway.request_options import RequestOptions


class Embedder:
    """Implements the part of the SDK's client that is used; an input's vector is its first token."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[list[int]], str]] = []
        self.error: BaseException | None = None
        self.waits = False
        self.cancelled = 0

    async def embed(self, inputs: Any, **options: Any) -> Embeddings:
        self.calls.append((inputs, options["request_id"]))
        if self.error is not None:
            raise self.error
        if self.waits:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return Embeddings(
            vectors=tuple(array("f", each[:1]) for each in inputs),
            model="e",
            request_id=options["request_id"],
            usage=Usage(prompt_tokens=1, completion_tokens=0, cached_prompt_tokens=0),
            cost=0.0,
        )

    async def close(self) -> None: ...


def batches(embedder: Embedder) -> InputBatches:
    return InputBatches(CallerClients(lambda token: cast(AsyncClient, embedder)))


def an_http_call(name: str) -> HttpCall:
    return HttpCall(options=RequestOptions(request_id=name))


async def test_inputs_of_one_request_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_batches, "CALL_INPUTS", 2)
    embedder = Embedder()
    made, one, two = batches(embedder), an_http_call("one"), an_http_call("two")
    wanted = [(one, 1), (one, 2), (two, 3), (one, 4)]
    found = await asyncio.gather(*(made.vector(call, [token], {"model": "e"}) for call, token in wanted))
    assert [list(each) for each in found] == [[1.0], [2.0], [3.0], [4.0]]
    assert sorted(embedder.calls, key=str) == [([[1], [2]], "one"), ([[3]], "two"), ([[4]], "one-1")]


@pytest.mark.parametrize("error", [SageError("full"), ValueError("broken"), asyncio.CancelledError()])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_nobody_waits_for_a_call_that_failed(error: BaseException) -> None:
    embedder = Embedder()
    embedder.error = error
    made, call = batches(embedder), an_http_call("r")
    with pytest.raises(type(error)):
        async with asyncio.timeout(5):
            await made.vector(call, [1], {"model": "e"})


async def test_a_call_whose_readers_left_is_cancelled() -> None:
    embedder = Embedder()
    embedder.waits = True
    made, call = batches(embedder), an_http_call("r")
    readers = [asyncio.ensure_future(made.vector(call, [each], {"model": "e"})) for each in range(2)]
    while not embedder.calls:
        await asyncio.sleep(0)
    readers[0].cancel()
    await asyncio.sleep(0.01)
    assert embedder.cancelled == 0
    readers[1].cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert embedder.cancelled == 1
