"""Where a request's time went: from acceptance to its end, without gap or overlap, whatever happened to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.timeline import TimeSlice, TimeUse, timeline
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.request import RequestState
from tests.unit.control.handoff_world import PdWorld
from tests.unit.control.world import Reader, World

QUEUE, PREFILL, TRANSFER, DECODE, LOST = TimeUse


def slices(world: World, live: LiveRequest) -> list[TimeSlice]:
    """Checked: they cover the request's time."""
    told = world.plane.explainer.explain(live.key)
    found = list(told.time_slices)
    assert found[0].start_s == 0.0
    for earlier, later in pairwise(found):
        assert earlier.start_s + earlier.length_s == pytest.approx(later.start_s)
    ended_at = told.history[-1].at if live.state.ended else world.clock.now()
    assert found[-1].start_s + found[-1].length_s == pytest.approx(ended_at - live.request.arrived_at)
    assert [entry.at for entry in told.history] == sorted(entry.at for entry in told.history)
    return found


def uses(world: World, reader: Reader) -> list[tuple[TimeUse, str]]:
    return [(each.use, each.instance_id) for each in slices(world, reader.live)]


async def test_a_request_that_found_room_at_once() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r", max_tokens=20)
        await world.advance(2.0)
        assert reader.finished.completion_tokens
        assert uses(world, reader)[-2:] == [(PREFILL, "a"), (DECODE, "a")]


async def test_a_request_in_the_queue_so_far() -> None:
    async with World() as world:
        world.add("a").crash()
        await world.advance(1.0)
        reader = await world.submit("r", wait_for_instance=True)
        await world.advance(3.0)
        [waiting] = slices(world, reader.live)
        assert waiting.use is QUEUE
        assert waiting.length_s == pytest.approx(3.0)
        assert "no instance is ready" in [entry.detail for entry in reader.live.history]


async def test_the_history_says_what_a_request_had_to_wait_for_when_it_came() -> None:
    async with World() as world:
        world.add("a", max_running=1)
        for number in range(4):
            await world.submit(f"r{number}", max_tokens=4_000)
            await world.advance(0.5)
        queued = [[entry.detail for entry in live.history if entry.event == "queued"] for live in world.plane.requests]
        # The first runs, the second is queued at the engine's lookahead.
        assert queued[0] == []
        assert queued[-2:] == [["no slot is free on the instances that run whole requests (1)"], ["1 others wait"]]


async def test_one_that_runs_so_far() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r", max_tokens=4_000)
        await world.advance(1.0)
        assert uses(world, reader)[-1] == (DECODE, "a")
        reader.task.cancel()


async def test_what_a_lost_instance_delivered_is_not_lost_and_the_wait_for_its_loss_is() -> None:
    async with World() as world:
        first = world.add("a")
        reader = await world.submit("r", max_tokens=200)
        await world.advance(1.0)
        world.add("b")
        first.silent = first.hung = True
        await world.advance(20.0)
        assert reader.finished.completion_tokens
        found = uses(world, reader)
        at = found.index((DECODE, "a"))
        assert found[at + 1] == (LOST, "a")
        assert found[-2:] == [(PREFILL, "b"), (DECODE, "b")]
        assert "resumed" in [entry.event for entry in reader.live.history]
        lost = next(each for each in slices(world, reader.live) if each.use is LOST)
        assert lost.length_s > 0.3


async def test_an_attempt_that_gave_nothing_is_lost_from_its_placing_on() -> None:
    async with World() as world:
        first = world.add("a")
        first.hung = True
        reader = await world.submit("r", max_tokens=5)
        await world.advance(0.5)
        first.crash()
        world.add("b")
        await world.advance(5.0)
        assert reader.finished.completion_tokens
        found = uses(world, reader)
        assert (LOST, "a") in found
        assert not [each for each in found if each == (PREFILL, "a")]


async def test_a_request_every_attempt_of_which_failed() -> None:
    async with World() as world:
        for name in "abcdef":
            world.add(name, fails="out of memory")
        reader = await world.submit("r")
        await world.advance(5.0)
        assert reader.live.state is RequestState.FAILED
        assert {use for use, _ in uses(world, reader)} <= {QUEUE, LOST}


async def test_a_split_request() -> None:
    async with PdWorld() as world:
        world.add_pd("p", InstanceRole.PREFILLING)
        world.add_pd("d", InstanceRole.DECODING)
        await world.ready()
        reader = await world.submit("r", max_tokens=20)
        await world.advance(3.0)
        assert reader.finished.completion_tokens
        assert uses(world, reader)[-3:] == [(PREFILL, "p"), (TRANSFER, "d"), (DECODE, "d")]


async def test_a_split_request_whose_prefill_instance_was_lost() -> None:
    async with PdWorld() as world:
        prefill = world.add_pd("p", InstanceRole.PREFILLING)
        world.add_pd("d", InstanceRole.DECODING)
        await world.ready()
        prefill.hung = True
        reader = await world.submit("r", max_tokens=20)
        await world.advance(0.1)
        prefill.crash()
        await world.advance(5.0)
        assert reader.finished.completion_tokens
        assert uses(world, reader)[-3:] == [(LOST, "p"), (PREFILL, "d"), (DECODE, "d")]
        assert "fallback" in [entry.event for entry in reader.live.history]


async def adopted_at_7_s(world: World, *, first_token_s: float | None) -> LiveRequest:
    """A request that was sent to an instance 0.5 s after its arrival, and adopted there at 7 s; arrival is at 0."""
    world.add("a")
    done = await world.submit("r", max_tokens=5)
    await world.advance(2.0)
    [placement] = done.live.placements
    live = LiveRequest(request=replace(done.live.request, arrived_at=0.0), digest=b"", detached=False)
    live.first_assigned_at, live.first_token_at = 0.5, first_token_s
    live.placed(placement.decision, 7.0)
    live.note(7.0, "adopted", "a runs it for an earlier scheduler")
    return live


def told(live: LiveRequest, now: float) -> list[tuple[TimeUse, str, float]]:
    return [(each.use, each.instance_id, round(each.length_s, 6)) for each in timeline(live, now)]


async def test_an_adopted_request_spent_its_time_where_the_earlier_scheduler_had_it() -> None:
    async with World() as world:
        live = await adopted_at_7_s(world, first_token_s=0.8)
        live.note_first_token(7.2, "a")
        assert told(live, 9.0) == [(QUEUE, "", 0.5), (PREFILL, "a", 0.3), (DECODE, "a", 8.2)]


async def test_an_adopted_request_without_a_token_computes_its_prompt() -> None:
    async with World() as world:
        live = await adopted_at_7_s(world, first_token_s=None)
        live.note_first_token(7.5, "a")
        assert told(live, 9.0) == [(QUEUE, "", 0.5), (PREFILL, "a", 7.0), (DECODE, "a", 1.5)]
