"""Random schedules of detached work in virtual time: schedulers and executors die, the journal fails, requests end."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

import pytest

from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.domain.errors import JournalUnavailable, Recovering
from scheduler_svc.domain.request import RequestKey, RequestState
from tests.support.memory_detached_store import MemoryDetachedStore
from tests.unit.control.detached_world import DetachedReader, DetachedWorld
from tests.unit.control.world import expected

SCHEDULES = int(os.environ.get("SAGE_SCHEDULES", "24"))
FIRST = int(os.environ.get("SAGE_SCHEDULES_FROM", "0"))
REIGNS = 4
ACTIONS = 12


@dataclass
class Job:
    """One request, as its client knows it."""

    key: RequestKey
    max_tokens: int
    accepted: bool = False
    cancelled: bool = False  # somebody tried to
    token_ids: list[int] = field(default_factory=list)  # that its reader has
    attempt: tuple[int, int] | None = None  # that made the last of them
    end: str = ""  # as it was first seen


@dataclass
class Schedule:
    """A random schedule; the same seed gives the same one."""

    dice: random.Random
    store: MemoryDetachedStore = field(default_factory=MemoryDetachedStore)
    jobs: list[Job] = field(default_factory=list)
    began_at: float = 0.0  # of the present scheduler, on the wall clock

    async def play(self) -> None:
        """Let some schedulers reign, one after the other, and the last one until everything has ended."""
        for number in range(REIGNS):
            last = number == REIGNS - 1
            async with DetachedWorld(store=self.store, epoch=number + 1, started_at=self.began_at) as world:
                await self._reign(world, last=last)
                self.store.closed = True
                self.began_at += world.clock.now() + 1.0
            self.store = self._survives()

    def _survives(self) -> MemoryDetachedStore:
        """Return what is on the disk when the process is gone."""
        left = MemoryDetachedStore()
        left.rows = self.store.rows
        return left

    async def _reign(self, world: DetachedWorld, *, last: bool) -> None:
        world.add("a")
        readers: dict[RequestKey, tuple[Job, DetachedReader, int]] = {}
        for _ in range(ACTIONS):
            await self._act(world, readers)
            await world.advance(self.dice.uniform(0.0, 0.4))
            self._look(readers)
        self.store.trouble = ""
        if last:
            world.add("z")
            await world.advance(60.0)
            self._look(readers)
            await self._all_have_ended(world)

    async def _act(self, world: DetachedWorld, readers: dict[RequestKey, tuple[Job, DetachedReader, int]]) -> None:
        kind = self.dice.choice(
            ["submit", "submit", "again", "read", "read", "cancel", "trouble", "well", "die", "join"]
        )
        job = self.dice.choice(self.jobs) if self.jobs else None
        if kind == "submit":
            number = len(self.jobs)
            key = RequestKey(tenant="t", request_id=f"r{number}")
            job = Job(key, max_tokens=self.dice.choice([1, 5, self.dice.randint(20, 200)]))
            self.jobs.append(job)
            await self._submit(world, job)
        elif kind == "again" and job is not None:
            await self._submit(world, job)
        elif kind == "read" and job is not None and job.accepted and job.key not in readers:
            await self._read(world, job, readers)
        elif kind == "cancel" and job is not None and job.accepted:
            job.cancelled = True
            try:
                await world.plane.intake.known.find(job.key)
                world.plane.intake.cancel(job.key, "test")
            except (Recovering, JournalUnavailable):
                return
        elif kind == "trouble":
            self.store.trouble = "the disk is full"
        elif kind == "well":
            self.store.trouble = ""
        elif kind == "die" and "a" in world.executors:
            world.executors["a"].crash()
        elif kind == "join":
            world.add(f"b{world.clock.now()}")

    async def _submit(self, world: DetachedWorld, job: Job) -> None:
        try:
            await world.leave(job.key.request_id, max_tokens=job.max_tokens, wait_for_instance=True)
        except (JournalUnavailable, Recovering):
            return
        job.accepted = True

    async def _read(
        self, world: DetachedWorld, job: Job, readers: dict[RequestKey, tuple[Job, DetachedReader, int]]
    ) -> None:
        have = len(job.token_ids)
        try:
            await world.plane.intake.known.find(job.key)
            reader = world.read(job.key.request_id, after_token=have, after_attempt=job.attempt)
        except (JournalUnavailable, Recovering):
            return
        readers[job.key] = (job, reader, have)

    def _look(self, readers: dict[RequestKey, tuple[Job, DetachedReader, int]]) -> None:
        """Take what readers got."""
        for job, reader, had in readers.values():
            job.token_ids[had:] = reader.token_ids
            assert job.token_ids == expected(len(job.token_ids)), job.key
            row = self.store.rows[job.key]
            assert len(job.token_ids) <= row.tokens, f"{job.key}: its reader has more than is written down"
            if not reader.finished_not_yet():
                job.attempt = reader.attempt_name()
            if reader.error is not None or (reader.events and isinstance(reader.events[-1], Finished)):
                self._ended(job, reader.live.state)

    def _ended(self, job: Job, state: RequestState) -> None:
        job.end = job.end or state.value
        assert job.end == state.value, f"{job.key} ended twice"

    async def _all_have_ended(self, world: DetachedWorld) -> None:
        for job in self.jobs:
            if not job.accepted:
                continue
            live = await world.plane.intake.known.find(job.key)
            end = self.store.rows[job.key].end
            assert end is not None, f"{job.key} has no end"
            assert live.published_outcome is not None
            self._ended(job, end.state)
            tokens = [t for piece in self.store.rows[job.key].pieces for t in piece.token_ids]
            assert list(live.output.token_ids) == tokens == expected(len(tokens)), job.key
            assert job.token_ids == tokens[: len(job.token_ids)]
            if isinstance(live.outcome, Finished):
                assert len(tokens) == job.max_tokens
            elif end.state is RequestState.CANCELLED:
                assert job.cancelled
        assert world.work.unfinished == 0
        assert len(world.plane.requests) == 0
        for key in set(self.store.rows) - {job.key for job in self.jobs if job.accepted}:
            raise AssertionError(f"{key} was refused and is kept")


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SCHEDULES))
async def test_each_has_one_result_and_no_reader_sees_another(seed: int) -> None:
    await Schedule(random.Random(seed)).play()
