"""Whatever happens, and in whatever order: every accepted request ends once, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.domain.errors import DeadlineExceeded, InvalidTransition, NoInstance, Overloaded, RequestCancelled
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import Priority, RequestState
from tests.unit.control.handoff_world import PdWorld
from tests.unit.control.world import ModelledExecutor, Reader, World, expected

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
STEP_S = 0.05
Action: TypeAlias = tuple[str, int]


@dataclass
class Asked:
    """A request, and what its callers did: that says how it may end."""

    live: LiveRequest
    options: dict[str, Any]
    readers: list[tuple[int, Reader]] = field(default_factory=list)  # (after_token, client)
    may_be_cancelled: bool = False

    @property
    def output(self) -> list[int]:
        return expected(self.options["max_tokens"])


class Schedule:
    """Plays actions against a world.  One that makes no sense where things stand does nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.executors = tuple(world.executors)
        self.asked: list[Asked] = []

    async def play(self, actions: list[Action]) -> None:
        moves: dict[str, Callable[[int], Any]] = {name: getattr(self, name) for name in ACTIONS}
        for name, value in actions:
            moved = moves[name](value)
            if moved is not None:
                await moved
            await self.world.clock.settle()

    # --- what callers do --------------------------------------------------------------------------

    async def submit(self, value: int) -> None:
        options: dict[str, Any] = {
            "prompt": 1 + value % 300,
            "max_tokens": 1 + value % 40,
            "priority": Priority(1 + value % 5),
            "detached": value % 7 == 6,
            "deadline_s": 1.0 if value % 11 == 10 else None,
            "sampling": {"presence_penalty": 0.5} if value % 5 == 4 else {},  # can only be replayed
            "choices": 3 if value % 4 == 3 else 1,
            "takes_choices": True,
        }
        try:
            reader = await self.world.submit(f"r{len(self.asked)}", **options)
        except NoInstance:
            assert not self.world.plane.scheduler.ready_instances("m"), "refused while an instance is READY"
            return
        except Overloaded:
            assert options["deadline_s"] is not None, "only a deadline may be hopeless"
            return
        self.asked.append(Asked(live=reader.live, options=options, readers=[(0, reader)]))

    async def attach(self, value: int) -> None:
        """One more client reads the same request, from somewhere."""
        if self.asked:
            asked = self._one(value)
            after = value % (len(asked.live.output) + 1)
            name = asked.live.key.request_id
            try:
                reader = await self.world.submit(name, after_token=after, **asked.options)
            except (NoInstance, Overloaded):
                assert asked.live.all_ended, "a client of a live request attaches to it"
                return
            found = next((each for each in self.asked if each.live is reader.live), None)
            if found is None:  # the service had ended it, so it is served anew
                found = Asked(live=reader.live, options=asked.options)
                self.asked.append(found)
            found.readers.append((after, reader))

    def cancel(self, value: int) -> None:
        if self.asked:
            asked = self._one(value)
            for each in self.asked:
                each.may_be_cancelled |= each.live.key == asked.live.key
            self.world.plane.intake.cancel(asked.live.key, "")

    async def leave(self, value: int) -> None:
        if self.asked:
            asked = self._one(value)
            asked.may_be_cancelled = True
            _, reader = asked.readers[value % len(asked.readers)]
            await reader.go_away()

    def _one(self, value: int) -> Asked:
        return self.asked[value % len(self.asked)]

    # --- what happens to executors ----------------------------------------------------------------

    def crash(self, value: int) -> None:
        executor = self._executor(value)
        if not executor.dead:
            executor.crash()

    def disconnect(self, value: int) -> None:
        executor = self._executor(value)
        if executor.connected:
            executor.disconnect()

    def reconnect(self, value: int) -> None:
        """Also while it is connected: an executor may notice a broken stream before the scheduler does."""
        executor = self._executor(value)
        if not executor.dead:
            executor.connect()

    def restart(self, value: int) -> None:
        executor = self._executor(value)
        if not executor.dead:
            executor.crash()
        executor.restart()

    def hang(self, value: int) -> None:
        self._executor(value).hung ^= True

    def silence(self, value: int) -> None:
        self._executor(value).silent ^= True

    def lose_assigns(self, value: int) -> None:
        """AttemptTable go astray, which breaks the stream sooner or later."""
        executor = self._executor(value)
        executor.lost_assigns ^= True
        if not executor.lost_assigns and executor.connected:
            executor.disconnect()

    def lose_ends(self, value: int) -> None:
        self._executor(value).loses_ends ^= True

    def fail(self, value: int) -> None:
        executor = self._executor(value)
        executor.fails = "" if executor.fails else "device error"

    def refuse(self, value: int) -> None:
        executor = self._executor(value)
        executor.refuses = "" if executor.refuses else "full"

    def _executor(self, value: int) -> ModelledExecutor:
        return self.world.executors[self._name(value)]

    def _name(self, value: int) -> str:
        return self.executors[value % len(self.executors)]

    # --- what operators do ------------------------------------------------------------------------

    def drain(self, value: int) -> None:
        self._allowed(
            lambda: self.world.plane.instances.orders.drain(self._name(value), "maintenance", by_operator=True)
        )

    def resume(self, value: int) -> None:
        self._allowed(lambda: self.world.plane.instances.orders.resume(self._name(value)))

    def policy(self, value: int) -> None:
        self.world.plane.scheduler.set_policy(POLICIES[value % len(POLICIES)], self.world.clock.now(), "as told")

    def _allowed(self, call: Callable[[], object]) -> None:
        with suppress(InvalidTransition):
            call()

    # --- time -------------------------------------------------------------------------------------

    async def moment(self, value: int) -> None:
        await self.world.advance(0.02 * (1 + value % 20))

    async def seconds(self, value: int) -> None:
        await self.world.advance(1 + value % 12)

    # --- the end ----------------------------------------------------------------------------------

    async def heal(self) -> None:
        for executor in self.world.executors.values():
            executor.hung = executor.silent = executor.lost_assigns = executor.loses_ends = False
            executor.fails = executor.refuses = ""
            if executor.dead:
                executor.restart()
            else:
                executor.connect()
            await self.world.advance(0.2)
            self._allowed(lambda name=executor.instance_id: self.world.plane.instances.orders.resume(name))  # type: ignore[misc]
        for _ in range(40):
            await self.world.advance(5)
            if self._calm():
                break
        await self.world.advance(1)

    def _calm(self) -> bool:
        plane = self.world.plane
        rested = all(i.state is InstanceState.READY for i in plane.scheduler.instances())
        return rested and not len(plane.requests) and not len(plane.attempts)

    def check(self) -> None:
        self.world.raise_what_died()
        for asked in self.asked:
            for live in asked.live.members:
                self._check_request(asked, live)
        plane = self.world.plane
        assert not len(plane.requests)
        self.world.assert_all_room_is_free()
        assert plane.scheduler.live_attempts() == 0
        assert all(queue.waiting == 0 for queue in plane.scheduler.queues().values())
        assert set(plane.instances.table.models) == set(self.executors)
        assert len(plane.instances.table._by_id) == len(self.executors), "a session leaked"
        for executor in self.world.executors.values():
            assert not executor.held, "an executor still holds an attempt"
            assert self.world.state(executor.instance_id) is InstanceState.READY

    def _check_request(self, asked: Asked, live: LiveRequest) -> None:
        ends = [entry.event for entry in live.history if entry.event in {s.value for s in RequestState if s.ended}]
        assert ends == [live.state.value], f"{live.key} ended as {ends} and is {live.state}"
        assert not live.readers
        assert self.world.plane.runner.current.find(live) is None
        if isinstance(live.outcome, Finished):
            assert list(live.output.token_ids) == asked.output
        elif isinstance(live.outcome, RequestCancelled):
            assert asked.may_be_cancelled
        else:
            assert isinstance(live.outcome, DeadlineExceeded), live.outcome
            assert asked.options["deadline_s"] is not None
        for after_first, reader in asked.readers:
            after, token_ids = 0 if live.key.choice else after_first, reader.by_choice.get(live.key.choice, [])
            assert token_ids == asked.output[after : after + len(token_ids)]
            if reader.events and isinstance(reader.events[-1], Finished):
                assert token_ids == asked.output[after:]


ACTIONS = (
    *("submit", "attach", "cancel", "leave"),
    *("crash", "disconnect", "reconnect", "restart", "hang", "silence"),
    *("lose_assigns", "lose_ends", "fail", "refuse"),
    *("drain", "resume", "policy"),
    *("moment", "seconds"),
)
OFTEN = ("submit", "submit", "submit", "moment", "moment", "seconds")
SCHEDULES = st.lists(
    st.tuples(st.sampled_from(OFTEN + ACTIONS), st.integers(min_value=0, max_value=10_000)),
    min_size=10,
    max_size=50,
)


SETTINGS: dict[str, Any] = {
    "step_s": STEP_S,
    "queue": {"max_attempts": 100_000, "orphan_timeout_s": 10_000},
    "instance": {"forget_after_s": 10_000},
}
FEW = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@FEW
@given(SCHEDULES)
def test_every_accepted_request_ends_once_and_all_room_comes_back(actions: list[Action]) -> None:
    asyncio.run(_story(actions))


@FEW
@given(SCHEDULES)
def test_the_same_holds_where_requests_are_split(actions: list[Action]) -> None:
    asyncio.run(_split_story(actions))


async def _story(actions: list[Action]) -> None:
    async with World(**SETTINGS) as world:
        for name in ("a", "b", "c"):
            world.add(name, max_running=2)
        await _play(world, actions)


async def _split_story(actions: list[Action]) -> None:
    async with PdWorld(**SETTINGS) as world:
        world.add_pd("p", InstanceRole.PREFILLING, max_running=2)
        world.add_pd("d", InstanceRole.DECODING, max_running=2)
        world.add_pd("h", InstanceRole.HYBRID, max_running=2)
        await world.ready()
        await _play(world, actions)


async def _play(world: World, actions: list[Action]) -> None:
    schedule = Schedule(world)
    await schedule.play(actions)
    await schedule.heal()
    schedule.check()
