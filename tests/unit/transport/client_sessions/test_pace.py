"""When frames go: at once for what makes a caller wait, else one in 10 ms; none while the window is full."""

from __future__ import annotations

import pytest

from scheduler_svc.transport.client_sessions.limits import PACE_S, WINDOW_FRAMES
from tests.unit.control.world import World, expected
from tests.unit.transport.client_sessions.memory_session import MemorySession


class Counts:
    """Implements SessionObserver."""

    def __init__(self) -> None:
        self.frames = self.tokens = self.bytes = self.stalls = 0

    def opened(self) -> None: ...

    def closed(self) -> None: ...

    def sent(self, tokens: int, size: int) -> None:
        self.frames += 1
        self.tokens += tokens
        self.bytes += size

    def stalled(self) -> None:
        self.stalls += 1


async def test_a_first_token_goes_at_once_and_later_ones_at_the_pace() -> None:
    async with World(step_s=0.001) as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("r", max_tokens=200)
        await world.advance(0.001)
        assert session.of(handle).token_ids == expected(1)
        await world.advance(1)
        assert session.of(handle).token_ids == expected(200)
        gaps = [after - before for before, after in zip(session.at, session.at[1:], strict=False)]
        assert min(gaps[2:-1]) >= PACE_S - 1e-9
        assert len(session.at) < 200 / 8


async def test_an_acceptance_and_an_end_do_not_wait_for_the_pace() -> None:
    async with World(step_s=0.001) as world, MemorySession(world) as session:
        world.add("a", max_running=8)
        long = await session.submit("long", max_tokens=500)
        await world.advance(0.1045)
        short = await session.submit("short", max_tokens=2)
        assert session.of(short).accepted is not None
        await world.advance(0.0025)
        assert session.of(short).finished is not None
        assert session.of(long).finished is None


async def test_what_is_urgent_keeps_the_pace_while_half_of_the_window_is_taken() -> None:
    async with World(step_s=0.02) as world, MemorySession(world, acknowledges=False) as session:
        world.add("a", max_running=8)
        await session.submit("long", max_tokens=500)
        while session.frames.frames < WINDOW_FRAMES // 2:
            await world.advance(0.001)
        last = session.at[-1]
        await session.submit("next", max_tokens=5)
        assert session.at[-1] == last
        await world.advance(PACE_S)
        assert session.at[-1] >= last + PACE_S - 1e-9


async def test_a_full_window_builds_nothing_and_what_waits_coalesces() -> None:
    counts = Counts()
    async with World(step_s=0.02) as world, MemorySession(world, acknowledges=False, observer=counts) as session:
        world.add("a", max_running=8)
        handles = [await session.submit(f"r{n}", max_tokens=200) for n in range(4)]
        await world.advance(10)
        assert session.frames.frames == WINDOW_FRAMES
        assert counts.stalls == 1
        await session.say(acknowledged=WINDOW_FRAMES)
        await world.advance(0.1)
        assert session.frames.frames == WINDOW_FRAMES + 1
        for handle in handles:
            assert session.of(handle).token_ids == expected(200)
            assert session.of(handle).finished is not None
        assert (counts.frames, counts.tokens) == (WINDOW_FRAMES + 1, 800)
        assert counts.bytes > 800 * 3


async def test_a_slow_session_does_not_slow_the_other() -> None:
    async with World() as world, MemorySession(world) as slow, MemorySession(world) as fast:
        world.add("a", max_running=8)
        behind = await slow.submit("slow", max_tokens=100)
        slow.taking.clear()
        ahead = await fast.submit("fast", max_tokens=100)
        await world.advance(2)
        assert fast.of(ahead).finished is not None
        assert slow.of(behind).finished is None
        slow.taking.set()
        await world.advance(0.1)
        assert slow.of(behind).token_ids == expected(100)


async def test_pings_are_answered_with_a_full_window_too() -> None:
    async with World(step_s=0.02) as world, MemorySession(world, acknowledges=False) as session:
        world.add("a")
        await session.submit("r", max_tokens=500)
        await world.advance(5)
        await session.say(ping=11)
        assert session.pongs == [11]
        assert session.frames.frames == WINDOW_FRAMES


@pytest.mark.parametrize("count", [1, 8, 31])
async def test_an_acknowledgement_opens_the_window_by_as_much(count: int) -> None:
    async with World(step_s=0.02) as world, MemorySession(world, acknowledges=False) as session:
        world.add("a")
        await session.submit("r", max_tokens=1_000)
        await world.advance(3)
        await session.say(acknowledged=count)
        await world.advance(3)
        assert session.frames.frames == WINDOW_FRAMES + count
