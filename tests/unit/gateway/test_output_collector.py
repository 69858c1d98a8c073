"""What several choices put out reaches one reader whole, in order and bounded."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from sage_client import ChoiceFinished, Finished, FinishReason, QueueFullError, Timings, TokenLogprob, Usage
from sage_gateway.output_collector import BUFFER_BYTES, LEAST_BUFFER_BYTES, OutputCollector, buffer_bytes


class PausableCall:
    def __init__(self) -> None:
        self.paused = False
        self.left = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def leave(self) -> None:
        self.left = True


def end(reason: FinishReason = FinishReason.LENGTH) -> Finished:
    none = dict.fromkeys(("queue_s", "time_to_first_token_s", "prefill_s", "transfer_s", "decode_s", "total_s"))
    return Finished(
        finish_reason=reason,
        stop_string=None,
        stop_token_id=None,
        usage=Usage(prompt_tokens=1, completion_tokens=1, cached_prompt_tokens=0),
        timings=Timings(**none),
        attempts=1,
        cost=0.0,
        slo=(),
    )


def put(collector: OutputCollector, choice: int, token: int, text: str, logprobs: Any = ()) -> None:
    collector.tokens(choice, 0, [token], 0, text, logprobs)


async def test_what_arrived_before_the_reader_came_is_one_piece() -> None:
    collector = OutputCollector(1)
    put(collector, 0, 1, "a")
    put(collector, 0, 2, "b")

    [piece] = await collector.next()

    assert (piece.choice, piece.token_ids, piece.text, piece.finished) == (0, [1, 2], "ab", None)


async def test_a_waiting_reader_is_woken_by_any_choice() -> None:
    collector = OutputCollector(2)
    reading = asyncio.create_task(collector.next())
    await asyncio.sleep(0)
    put(collector, 1, 5, "x")
    [piece] = await reading
    assert (piece.choice, piece.text) == (1, "x")


async def test_the_end_comes_with_the_last_output_and_then_nothing() -> None:
    collector = OutputCollector(1)
    put(collector, 0, 1, "a")
    collector.finished(end())
    [only] = await collector.next()
    assert (only.text, only.finished) == ("a", end())
    assert collector.over
    assert await collector.next() == []


async def test_each_of_several_choices_has_its_own_end() -> None:
    collector = OutputCollector(2)
    put(collector, 0, 1, "a")
    collector.choice_finished(ChoiceFinished(choice=0, finished=end()))
    [first] = await collector.next()
    assert first.finished == end()
    over = collector.over
    collector.choice_finished(ChoiceFinished(choice=1, finished=end(FinishReason.STOP)))
    collector.finished(end())
    [second] = await collector.next()
    assert (second.choice, second.text, second.token_ids, second.finished) == (1, "", [], end(FinishReason.STOP))
    assert (over, collector.over) == (False, True)
    assert await collector.next() == []


async def test_a_failure_comes_before_what_was_not_read() -> None:
    collector = OutputCollector(2)
    put(collector, 0, 1, "a")
    collector.failed(QueueFullError("full"))
    with pytest.raises(QueueFullError):
        await collector.next()


async def test_log_probabilities_stay_with_their_tokens() -> None:
    collector = OutputCollector(1)
    each = (TokenLogprob(token_id=1, logprob=-0.5, rank=1),)
    put(collector, 0, 1, "a", [each])
    put(collector, 0, 1, "b", [each])
    [piece] = await collector.next()
    assert piece.logprobs == [each, each]


async def test_a_request_that_is_not_read_is_paused_until_it_is() -> None:
    collector = OutputCollector(1, limit_bytes=1_000)
    call = PausableCall()
    collector.call = cast(Any, call)
    for token in range(40):
        put(collector, 0, token, "text")
    assert call.paused
    await collector.next()
    assert not call.paused


async def test_leaving_lets_go_of_the_request() -> None:
    collector = OutputCollector(2)
    call = PausableCall()
    collector.call = cast(Any, call)
    collector.leave()
    assert call.left


def test_the_requests_of_an_http_request_share_its_buffer() -> None:
    assert buffer_bytes(1) == BUFFER_BYTES
    assert buffer_bytes(4) == BUFFER_BYTES // 4
    assert buffer_bytes(10**6) == LEAST_BUFFER_BYTES
