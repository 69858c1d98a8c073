"""Events wait for their reader, merged and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from sage.controlplane.v1 import inference_pb2
from sage_client import Attempt, SageError, TokenLogprob, Tokens
from sage_client._call import Call
from sage_client._event_queue import PIECE_BYTES, TOKEN_BYTES, EventQueue
from sage_client._events import new_tokens
from tests.unit.clients.test_session_outbox import cancel

FIRST = Attempt(epoch=1, number=1)
ROW = (TokenLogprob(token_id=1, logprob=-1.0, rank=1),)


def queue(limit: int = 1 << 20) -> EventQueue:
    made = EventQueue(limit)
    made.call = Call(inference_pb2.GenerateRequest(), made, cancel=cancel, timeout_s=60.0)
    made.call.attempt = FIRST
    return made


def tokens(first_index: int, ids: list[int], offset: int, text: str, **more: Any) -> Tokens:
    return Tokens(
        attempt=more.get("attempt", FIRST),
        choice=more.get("choice", 0),
        first_index=first_index,
        token_ids=tuple(ids),
        text_offset=offset,
        text=text,
        logprobs=more.get("logprobs", ()),
    )


def test_the_quick_way_makes_the_same_event() -> None:
    assert new_tokens(FIRST, 2, 3, (4, 5), 6, "ab", (ROW,)) == tokens(3, [4, 5], 6, "ab", choice=2, logprobs=(ROW,))


async def test_what_waits_is_merged() -> None:
    events = queue()
    events.tokens(0, 0, [1], 0, "a", (ROW,))
    events.tokens(0, 1, [2, 3], 1, "bc", (ROW, ROW))
    events.tokens(0, 3, [], 3, "d", ())

    assert events.take() == tokens(0, [1, 2, 3], 0, "abcd", logprobs=(ROW,) * 3)
    assert events.take() is None


async def test_choices_and_attempts_are_not_merged() -> None:
    events, second = queue(), Attempt(epoch=1, number=2)
    events.tokens(0, 0, [1], 0, "a", ())
    events.tokens(1, 0, [2], 0, "b", ())
    events.call.attempt = second
    events.tokens(1, 1, [3], 1, "c", ())

    assert events.take() == tokens(0, [1], 0, "a")
    assert events.take() == tokens(0, [2], 0, "b", choice=1)
    assert events.take() == tokens(1, [3], 1, "c", choice=1, attempt=second)


async def test_a_reader_that_waits_gets_it_at_once() -> None:
    events = queue()
    arrival = events.arrival()
    events.tokens(0, 0, [1], 0, "a", ())
    events.tokens(0, 1, [2], 1, "b", ())

    assert await arrival == tokens(0, [1], 0, "a")
    assert events.take() == tokens(1, [2], 1, "b")


async def test_a_failure_comes_after_what_waits() -> None:
    events = queue()
    events.tokens(0, 0, [1], 0, "a", ())
    events.failed(SageError("no"))

    assert events.error is None
    assert events.take() is not None
    assert str(events.error) == "no"


async def test_a_failure_wakes_the_reader() -> None:
    events = queue()
    arrival = events.arrival()
    events.failed(SageError("no"))

    assert await arrival is None


async def test_a_reader_that_was_cancelled_is_given_nothing() -> None:
    events = queue()
    events.arrival().cancel()
    events.tokens(0, 0, [1], 0, "a", ())

    assert events.take() == tokens(0, [1], 0, "a")


async def test_a_second_reader_is_refused() -> None:
    events = queue()
    reader = events.arrival()
    with pytest.raises(RuntimeError, match="another task reads"):
        events.arrival()
    events.wake()
    assert await reader is None


async def test_the_call_is_paused_at_the_bound_and_resumed_at_half_of_it() -> None:
    size = PIECE_BYTES + TOKEN_BYTES + 1
    events = queue(limit=10 * size)
    for index in range(10):  # choices take turns, so that nothing is merged
        assert not events.call.paused
        events.tokens(index % 2, index // 2, [index], index // 2, "x", ())
    assert events.call.paused

    for _ in range(4):
        events.take()
        assert events.call.paused
    events.take()
    assert not events.call.paused


async def test_what_is_merged_counts_by_its_tokens() -> None:
    events = queue(limit=PIECE_BYTES + 100 * (TOKEN_BYTES + 1))
    for index in range(100):
        assert not events.call.paused
        events.tokens(0, index, [index], index, "x", ())
    assert events.call.paused

    events.take()
    assert not events.call.paused
