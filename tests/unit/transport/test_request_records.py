"""What the next scheduler reads out of what an executor holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sage.controlplane.v1 import executor_pb2, record_pb2
from sage_wire import durations
from scheduler_svc.control.attempts.executor_link import KvHandoff
from scheduler_svc.transport.request_records import first_token_at, record
from tests.unit.control.world import World

ARRIVED, SENT, NOW = 100.0, 103.0, 120.0


def came_at(*, of_earlier_attempt_s: float | None = None, of_this_ago_s: float | None = None) -> float | None:
    made, answer = record_pb2.RequestRecord(), executor_pb2.HeldAssign()
    if of_earlier_attempt_s is not None:
        made.first_token.CopyFrom(durations.to_wire(of_earlier_attempt_s))
    if of_this_ago_s is not None:
        answer.first_token_for.CopyFrom(durations.to_wire(of_this_ago_s))
    return first_token_at(answer, made, ARRIVED, SENT, NOW)


def test_the_first_token_came_when_the_executor_says() -> None:
    assert came_at(of_this_ago_s=12.5) == pytest.approx(NOW - 12.5)


def test_a_token_of_an_earlier_attempt_came_first() -> None:
    assert came_at(of_earlier_attempt_s=1.5, of_this_ago_s=12.5) == pytest.approx(ARRIVED + 1.5)


def test_an_attempt_without_a_token_has_none() -> None:
    assert came_at() is None


@pytest.mark.parametrize(("ago_s", "expected"), [(-5.0, NOW), (1e6, SENT)], ids=["in the future", "before its Assign"])
def test_an_impossible_time_is_taken_for_the_nearest_possible_one(ago_s: float, expected: float) -> None:
    assert came_at(of_this_ago_s=ago_s) == pytest.approx(expected)


async def test_a_decode_leg_is_the_attempt_that_its_prefill_leg_began() -> None:
    async with World() as world:
        world.add("a")
        await world.submit("r", max_tokens=50)
        await world.advance(0.1)
        (held,) = world.executors["a"].held.values()
        assert held.order.live is not None
        assert held.order.live.attempts == 1, "it was placed"
        decode = replace(held.order, handoff=KvHandoff(params=b"{}", lease_s=5.0))
        assert record_pb2.RequestRecord.FromString(record(decode)).attempts == 0
