"""One client's view: what it is told, in which order, however late it comes and however slowly it reads."""

from __future__ import annotations

import asyncio

from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.control.timing.loop_lag import COALESCE_S
from scheduler_svc.domain.errors import RequestCancelled
from scheduler_svc.domain.request import RequestState
from tests.unit.control.world import Reader, World, expected


def kinds(reader: Reader) -> list[str]:
    return [type(event).__name__ for event in reader.events]


def slices(reader: Reader) -> list[TokenSlice]:
    return [event for event in reader.events if isinstance(event, TokenSlice)]


async def test_the_placement_comes_before_its_tokens_and_the_end_last() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=3)
        await world.advance(1)
        assert kinds(reader) == ["Placement", "TokenSlice", "TokenSlice", "TokenSlice", "Finished"]


async def test_a_placement_after_a_failure_comes_between_the_tokens_of_both_attempts() -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", max_tokens=40)
        await world.advance(0.2)
        a.crash()
        a.restart()
        await world.advance(2)
        assert isinstance(reader.events[0], Placement)
        second = next(i for i, e in enumerate(reader.events) if i and isinstance(e, Placement))
        seam = reader.events[second]
        assert isinstance(seam, Placement)
        before = [e for e in reader.events[:second] if isinstance(e, TokenSlice)]
        after = [e for e in reader.events[second:] if isinstance(e, TokenSlice)]
        assert sum(len(e.token_ids) for e in before) == seam.from_token
        assert {e.attempt_number for e in before} == {reader.live.placements[0].decision.attempt_number}
        assert {e.attempt_number for e in after} == {seam.decision.attempt_number}
        assert reader.token_ids == expected(40)


async def test_who_joins_late_is_told_the_placement_of_every_token_it_gets() -> None:
    async with World() as world:
        a = world.add("a")
        await world.submit("r1", max_tokens=100)
        await world.advance(0.2)
        a.crash()
        a.restart()
        await world.advance(0.2)
        late = await world.submit("r1", max_tokens=100)
        await world.advance(3)
        assert late.token_ids == expected(100)
        told = 0
        for event in late.events:
            if isinstance(event, Placement):
                told = event.decision.attempt_number
            elif isinstance(event, TokenSlice):
                assert event.attempt_number == told


async def test_who_joins_late_is_not_told_placements_whose_tokens_it_has() -> None:
    async with World() as world:
        a = world.add("a")
        await world.submit("r1", max_tokens=100)
        await world.advance(0.2)
        a.crash()
        a.restart()
        await world.advance(0.2)
        late = await world.submit("r1", max_tokens=100, after_token=25)
        await world.advance(3)
        assert len(late.live.placements) == 2
        assert len(late.instances) == 1
        assert late.token_ids == expected(100)[25:]


async def test_who_joins_past_the_seam_is_told_the_placement_first() -> None:
    async with World() as world:
        world.add("a")
        await world.submit("r1", max_tokens=50)
        await world.advance(0.2)
        late = await world.submit("r1", max_tokens=50, after_token=5)
        await world.advance(1)
        assert kinds(late)[0] == "Placement"
        assert late.token_ids == expected(50)[5:]
        assert slices(late)[0].text_offset == 5


async def test_a_position_past_the_end_gets_the_end() -> None:
    async with World() as world:
        world.add("a")
        await world.submit("r1", max_tokens=5)
        await world.advance(1)
        late = await world.submit("r1", max_tokens=5, after_token=50)
        await world.advance(0.1)
        assert late.token_ids == []
        assert late.finished.completion_tokens == 5


async def test_a_slow_client_gets_what_it_missed_in_one_piece() -> None:
    async with World() as world:
        world.add("a")
        subscription = await world.plane.intake.submit(world.submission("r1", max_tokens=30))
        await world.advance(2)
        events = [await subscription.next() for _ in range(3)]
        assert isinstance(events[0], Placement)
        assert isinstance(events[1], TokenSlice)
        assert list(events[1].token_ids) == expected(30)
        assert isinstance(events[2], Finished)
        world.plane.intake.readers.leave(subscription)


async def test_a_busy_loop_sends_several_tokens_at_once_but_the_first_at_once() -> None:
    async with World() as world:
        world.add("a")
        world.plane.loop_lag.busy = True
        reader = await world.submit("r1", max_tokens=60)
        await world.advance(3)
        sizes = [len(piece.token_ids) for piece in slices(reader)]
        assert sizes[0] == 1
        assert max(sizes) > 1
        assert len(sizes) < 60
        assert reader.token_ids == expected(60)
        assert COALESCE_S > 0.01, "longer than the modelled engine's step, or nothing would coalesce"


async def test_held_back_text_comes_after_the_last_token() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=3)
        await world.advance(1)
        reader.live.output.close("held")
        late = await world.submit("r1", max_tokens=3)
        await world.advance(0.1)
        tail = slices(late)[-1]
        assert (list(tail.token_ids), tail.text, tail.text_offset, tail.first_index) == ([], "held", 3, 3)
        assert kinds(late)[-1] == "Finished"


async def test_leaving_twice_is_leaving_once() -> None:
    async with World() as world:
        world.add("a")
        first = await world.plane.intake.submit(world.submission("r1", max_tokens=500))
        await world.plane.intake.submit(world.submission("r1", max_tokens=500))
        world.plane.intake.readers.leave(first)
        world.plane.intake.readers.leave(first)
        assert first.live.state is not RequestState.CANCELLED, "another client still reads"


async def test_a_request_lives_until_its_last_client_leaves() -> None:
    async with World() as world:
        world.add("a")
        readers = [await world.submit("r1", max_tokens=500) for _ in range(3)]
        await world.advance(0.1)
        for reader in readers[:2]:
            await reader.go_away()
        assert readers[2].live.state is RequestState.RUNNING
        await readers[2].go_away()
        assert isinstance(readers[2].live.outcome, RequestCancelled)


async def test_a_client_that_waits_is_woken_when_it_is_closed() -> None:
    async with World() as world:
        world.add("a", hung=True)
        subscription = await world.plane.intake.submit(world.submission("r1"))
        await world.advance(0.1)
        assert isinstance(await subscription.next(), Placement)
        waiting = asyncio.ensure_future(subscription.next())
        await world.clock.settle()
        subscription.close()
        await world.clock.settle()
        assert waiting.cancelled()
