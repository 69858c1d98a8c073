"""Requests that nobody reads any more: those of a large session do not all end in one turn of the event loop."""

from __future__ import annotations

from scheduler_svc.control.requests.grace import ENDS_PER_TURN
from scheduler_svc.control.requests.output_reader import OutputReader
from scheduler_svc.domain.request import RequestKey
from tests.unit.control.world import World
from tests.unit.transport.client_sessions.memory_session import TENANT, MemorySession, submit

MANY = 5 * ENDS_PER_TURN


async def submit_many(world: World, session: MemorySession) -> None:
    world.add("a", max_running=8)
    await session.say(submit=[submit(number, f"r{number}", max_tokens=3_000) for number in range(1, MANY + 1)])
    assert len(world.plane.requests) == MANY


async def assert_they_end_a_few_per_turn(world: World) -> None:
    while left := len(world.plane.requests):
        assert len(world.plane.intake.grace) == left
        await world.clock.step()
        assert left - len(world.plane.requests) <= ENDS_PER_TURN
    assert len(world.plane.intake.grace) == 0
    await world.advance(20)
    world.assert_all_room_is_free()


async def test_bye_ends_many_requests_a_few_per_turn() -> None:
    async with World() as world, MemorySession(world) as session:
        await submit_many(world, session)
        await session.say(bye=True)
        assert session.task.done()
        assert len(world.plane.requests) == MANY - ENDS_PER_TURN
        await assert_they_end_a_few_per_turn(world)


async def test_leaving_many_handles_ends_a_few_per_turn() -> None:
    async with World() as world, MemorySession(world) as session:
        await submit_many(world, session)
        await session.say(leave=range(1, MANY + 1))
        assert len(world.plane.requests) == MANY - ENDS_PER_TURN
        await assert_they_end_a_few_per_turn(world)


async def test_waits_that_are_over_in_one_turn_end_a_few_per_turn() -> None:
    async with World(step_s=10.0) as world, MemorySession(world) as session:
        await submit_many(world, session)
        await session.break_off()
        assert len(world.plane.intake.grace) == MANY
        for live in world.plane.requests:
            world.plane.intake.grace.begin(live, 0.0)
        assert len(world.plane.requests) == MANY - ENDS_PER_TURN
        await assert_they_end_a_few_per_turn(world)


async def test_a_request_that_is_read_again_before_its_turn_stays() -> None:
    async with World() as world, MemorySession(world) as first:
        await submit_many(world, first)
        await first.say(bye=True)
        async with MemorySession(world) as second:
            await second.attach(f"r{MANY}")
            await world.advance(0.01)
            assert [live.key.request_id for live in world.plane.requests] == [f"r{MANY}"]


async def test_many_readers_of_one_request_leave_in_time_that_grows_with_their_number() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("shared", max_tokens=3_000)
        live = world.plane.requests.get(RequestKey(tenant=TENANT, request_id="shared"))
        readers = [Watching() for _ in range(100)]
        for reader in readers:
            world.plane.intake.readers.attach(live.key, reader, 0)
        Watching.compared = 0
        for reader in reversed(readers):
            world.plane.intake.readers.leave(reader)
        assert Watching.compared == 0
        assert len(live.readers) == 1


class Watching(OutputReader):
    """A reader that counts how often it is compared with another one."""

    compared = 0
    __hash__ = OutputReader.__hash__

    def __eq__(self, other: object) -> bool:
        Watching.compared += self is not other
        return self is other

    def wake(self) -> None:
        """Do nothing."""
