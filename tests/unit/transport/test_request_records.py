"""What the next scheduler reads out of what an executor holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sage.controlplane.v1 import executor_pb2, record_pb2
from sage_media.kinds import MediaKind
from sage_wire import durations
from scheduler_svc.control.attempts.executor_link import KvHandoff
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.media import Media
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.detached_records import DetachedRecords
from scheduler_svc.transport.request_records import first_token_at, held_request, record
from tests.unit.control.world import World

MEDIA = (Media(data=b"one"), Media(data=b"two"), Media(kind=MediaKind.AUDIO, data=b"clip"))
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


async def live_with_media(world: World) -> LiveRequest:
    """A request that runs on "a", as its prompt's images and audio came with it."""
    world.add("a")
    await world.submit("r", max_tokens=50)
    await world.advance(0.1)
    (held,) = world.executors["a"].held.values()
    live = held.order.live
    assert live is not None
    live.request = replace(live.request, media=MEDIA, media_tokens=36)
    return live


async def test_an_adopted_request_has_the_media_that_its_executor_holds() -> None:
    async with World() as world:
        await live_with_media(world)
        (held,) = world.executors["a"].held.values()
        order = replace(held.order, request=replace(held.order.request, media=MEDIA, media_tokens=36))
        proofs = AdoptionKey(b"k" * 32)
        answer = executor_pb2.HeldAssign(assign=assign_message(order, "a", proofs))
        answer.attempt.CopyFrom(answer.assign.attempt)
        found = held_request(answer, "a", proofs, NOW)
        assert found is not None
        assert [each.data for each in found.request.media] == [b"one", b"two", b"clip"]
        assert found.request.prompt_tokens == order.request.prompt_tokens


async def test_the_journal_keeps_the_media_of_detached_work() -> None:
    async with World() as world:
        live = await live_with_media(world)
        records = DetachedRecords()
        found = records.decode(records.encode(live), arrived_at=ARRIVED, deadline_at=None).request
        assert [each.data for each in found.media] == [b"one", b"two", b"clip"]
        assert found.prompt_tokens == live.request.prompt_tokens
