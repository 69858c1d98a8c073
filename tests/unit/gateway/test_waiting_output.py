"""What a plain stream's request puts out reaches its reader whole and in order, and waits in bounded memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sage_client import Accepted, Call, PromptRead, QueueFullError
from sage_gateway.http_call import HttpCall
from sage_gateway.plain_streams.waiting_output import LIMIT_BYTES, Output, WaitingOutput
from tests.unit.gateway.scripted_end import end


class PausableCall:
    paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def put(output: WaitingOutput, text: str, tokens: int = 1) -> None:
    output.tokens(0, 0, [7] * tokens, 0, text, ())


async def test_what_came_before_the_reader_is_handed_over_in_one_piece() -> None:
    output = WaitingOutput(HttpCall())
    put(output, "a")
    put(output, "b", 2)
    finished = end()
    output.finished(finished)
    assert await output.next() == Output("ab", 3, finished, 0)


async def test_cached_prompt_tokens_come_with_the_first_output() -> None:
    output = WaitingOutput(HttpCall())
    output.prompt_read(PromptRead(choice=0, cached_tokens=16, logprobs=()))
    put(output, "a")
    assert await output.next() == Output("a", 1, None, 16)


async def test_the_end_says_how_much_was_cached_if_it_comes_with_the_first_output() -> None:
    output = WaitingOutput(HttpCall())
    output.prompt_read(PromptRead(choice=0, cached_tokens=16, logprobs=()))
    output.finished(end(cached=32))
    assert (await output.next()).cached_prompt_tokens == 32


async def test_a_waiting_reader_is_woken() -> None:
    output = WaitingOutput(HttpCall())
    reading = asyncio.create_task(output.next())
    await asyncio.sleep(0)
    put(output, "a")
    assert await reading == Output("a", 1, None)
    reading = asyncio.create_task(output.next())
    await asyncio.sleep(0)
    assert not reading.done()
    put(output, "", 1)
    assert await reading == Output("", 1, None)


async def test_a_failure_counts_before_what_was_not_read() -> None:
    output = WaitingOutput(HttpCall())
    put(output, "a")
    output.failed(QueueFullError("full"))
    with pytest.raises(QueueFullError):
        await output.next()


async def test_a_reader_that_was_cancelled_may_come_again() -> None:
    output = WaitingOutput(HttpCall())
    reading = asyncio.create_task(output.next())
    await asyncio.sleep(0)
    reading.cancel()
    put(output, "a")
    assert (await output.next()).text == "a"


@pytest.mark.parametrize("text", ["x" * 1000, ""])
async def test_a_reader_that_is_slow_pauses_its_request(text: str) -> None:
    """Also one whose tokens have no text."""
    output, call = WaitingOutput(HttpCall()), PausableCall()
    output.request = cast(Call, call)
    pieces = 0
    while not call.paused:
        put(output, text)
        pieces += 1
    assert pieces <= LIMIT_BYTES // (4 * len(text) + 50)
    assert (await output.next()).tokens == pieces
    assert not call.paused


async def test_the_call_learns_of_the_first_acceptance_and_the_latest_placement() -> None:
    call = HttpCall()
    output = WaitingOutput(call)
    first, second = (cast(Accepted, object()) for _ in range(2))
    placements: list[Any] = [object(), object()]
    for accepted, placement in zip((first, second), placements, strict=True):
        output.accepted(accepted)
        output.scheduled(placement)
    assert (call.accepted, call.scheduled) == (first, placements[1])
