"""Random schedules of deaths, broken links, cancels and readers that come and go, in virtual time."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

from scheduler_svc.domain.errors import Recovering, RequestNotFound
from scheduler_svc.domain.request import RequestKey
from tests.unit.control.restarting_executor import Executor
from tests.unit.control.restarting_fleet import ENDS_WITHIN_S, Client, Fleet

SCHEDULES = int(os.environ.get("SAGE_SCHEDULES", "24"))
FIRST = int(os.environ.get("SAGE_SCHEDULES_FROM", "0"))
CLIENTS = 20
FAULTS = 15


class Schedule:
    """One random schedule; the same seed gives the same one."""

    def __init__(self, fleet: Fleet, *, executors_die: bool) -> None:
        self.fleet = fleet
        self.clients: list[Client] = []
        self.faults: Counter[str] = Counter()
        self._executors_die = executors_die
        self._tasks: list[asyncio.Task[None]] = []
        self._readers: list[Client] = []  # second readers, each of the request of a client

    async def play(self) -> None:
        dice, clock = self.fleet.dice, self.fleet.clock
        for number in range(CLIENTS):
            self._begin(number)
            await clock.advance(dice.uniform(0.0, 0.3))
            if number % 2:
                await self._strike()
        while self.faults.total() < FAULTS:
            await clock.advance(dice.uniform(0.05, 1.5))
            await self._strike()
        await self._recover()
        end = clock.now() + ENDS_WITHIN_S
        while clock.now() < end and not all(task.done() for task in self._tasks):
            await clock.advance(0.5)
        for task in self._tasks:
            assert task.done(), "a client hangs"
            task.result()
        for second in self._readers:
            self._compare(second)
        if not self.fleet.executor_was_lost:
            read_twice = {each.request_id for each in self._readers}
            for client in self.clients:
                assert self._runs(client.request_id) <= 1 or client.request_id in read_twice, client.request_id
        await clock.advance(65.0)  # ends that nobody confirmed are let go
        self.fleet.assert_nothing_is_left()

    def _begin(self, number: int) -> None:
        dice = self.fleet.dice
        client = Client(
            self.fleet,
            f"r{number}",
            max_tokens=dice.choice([1, 2, dice.randint(3, 60)]),
            unseeded=dice.random() < 0.5,
            confirms=dice.random() < 0.5,
            fresh=dice.random() < 0.5,
        )
        self.clients.append(client)
        self._start(client)

    def _start(self, client: Client) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(client.run()))

    async def _strike(self) -> None:
        dice = self.fleet.dice
        kinds = ["scheduler", "scheduler", "vanish", "second", "cancel", "link"]
        if self._executors_die:
            kinds += ["executor", "both", "freeze", "away", "away"]
        kind = dice.choice(kinds)
        self.faults[kind] += 1
        await getattr(self, f"_{kind}")()

    async def _scheduler(self) -> None:
        await self.fleet.kill_scheduler(hands_over=self.fleet.dice.random() < 0.5)
        self._later(self.fleet.dice.uniform(0.05, 2.0), self._start_scheduler)

    def _start_scheduler(self) -> None:
        if self.fleet.reign is None:
            self.fleet.start_scheduler()

    async def _executor(self) -> None:
        victim = self.fleet.dice.choice(self.fleet.executors)
        self.fleet.executor_was_lost = True
        victim.kill()
        self._later(self.fleet.dice.uniform(0.5, 3.0), victim.start)

    async def _both(self) -> None:
        await self._executor()
        await self._scheduler()

    async def _away(self) -> None:
        """A link that is broken for longer than the scheduler's grace: it gives the executor up."""
        victim = self.fleet.dice.choice(self.fleet.executors)
        self.fleet.executor_was_lost = True
        victim.break_link()
        victim.away_until += self.fleet.dice.uniform(0.1, 3.0)

    async def _freeze(self) -> None:
        """A process that is stopped and goes on: its scheduler may have given it up meanwhile."""
        victim = self.fleet.dice.choice(self.fleet.executors)
        self.fleet.executor_was_lost = True
        victim.frozen = True
        self._later(self.fleet.dice.uniform(0.2, 20.0), lambda: self._thaw(victim))

    def _thaw(self, victim: Executor) -> None:
        if victim.frozen:
            victim.frozen = False
            victim.break_link()

    async def _link(self) -> None:
        self.fleet.dice.choice(self.fleet.executors).break_link()

    async def _vanish(self) -> None:
        if self.clients:
            self.fleet.dice.choice(self.clients).vanish()

    async def _second(self) -> None:
        """Another client reads the same request."""
        if not self.clients:
            return
        first = self.fleet.dice.choice(self.clients)
        second = Client(self.fleet, first.request_id, first.max_tokens, first.unseeded, confirms=True)
        second.cancels = first.cancels
        self._readers.append(second)
        self._start(second)

    async def _cancel(self) -> None:
        """Cancel a request; now and then one that is about to end."""
        reign = self.fleet.reign
        alive = [each for each in self.clients if not each.over]
        if reign is None or not alive:
            return
        client = min(alive, key=lambda each: each.max_tokens - len(each.token_ids))
        for each in (*self.clients, *self._readers):
            each.cancels |= each.request_id == client.request_id
        try:
            reign.plane.intake.cancel(RequestKey(tenant="t", request_id=client.request_id), "test")
        except (Recovering, RequestNotFound):
            return

    def _compare(self, second: Client) -> None:
        """Two readers of one request have the same tokens.

        One that comes when the other has read the end may find nobody who knows the request: then it runs again.
        """
        first = next(each for each in self.clients if each.request_id == second.request_id)
        if first.over == second.over == "finished" and self._runs(first.request_id) == 1:
            assert first.token_ids == second.token_ids, first.request_id

    def _runs(self, request_id: str) -> int:
        """How often a request began from its start."""
        return sum(each.begun.count(request_id) for each in self.fleet.executors)

    async def _recover(self) -> None:
        """Let everything run again."""
        if self.fleet.reign is None:
            self.fleet.start_scheduler()
        for each in self.fleet.executors:
            self._thaw(each)
            if each.dead:
                each.start()

    def _later(self, after_s: float, do: object) -> None:
        assert callable(do)
        self.fleet.clock.call_at(self.fleet.clock.now() + after_s, do)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SCHEDULES))
async def test_nothing_is_lost_doubled_or_changed(seed: int) -> None:
    executors_die = seed % 2 == 1
    async with Fleet(seed) as fleet:
        schedule = Schedule(fleet, executors_die=executors_die)
        await schedule.play()
        tally = fleet.tally
        if not executors_die:
            assert not tally.lost, "only schedulers died and links broke"
        print(f"seed {seed}: {dict(schedule.faults)}; {tally}")
