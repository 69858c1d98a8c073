"""Leaving in order, and being told to drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from executor_svc.engine.port import Sampling
from executor_svc.runtime import drain as drain_module
from executor_svc.runtime.drain import Drain
from executor_svc.runtime.load_meter import LoadMeter, LoopLag
from executor_svc.runtime.messages import (
    Ack,
    Assign,
    Attempt,
    Drained,
    DrainRequested,
    EndCause,
    Ended,
    Goodbye,
    Identity,
    Role,
    TextOptions,
)
from executor_svc.runtime.session import Session, SessionTimings
from tests.unit.executor.memory_link import MemoryDialer, MemoryLink
from tests.unit.executor.workbench import EPOCH, PROMPT, Workbench, workbench

ENDLESS = Sampling(temperature=0, max_tokens=4000, ignore_eos=True)
SHORT = Sampling(temperature=0, max_tokens=5, ignore_eos=True)


class Leaver:
    """A workbench whose output goes to a link, and the drain of it."""

    def __init__(self, bench: Workbench, *links: MemoryLink, timeout_s: float) -> None:
        self.bench = bench
        self.session = Session(
            identity=Identity(instance_id="one", engine_start_id="e", role=Role.GENERAL, model="sim"),
            addresses=["nowhere"],
            dialer=MemoryDialer(*links),
            assignments=bench.assignments,
            outbox=bench.outbox,
            meter=LoadMeter(LoopLag()),
            timings=SessionTimings(first_retry_s=0.001, most_retry_s=0.01),
        )
        self.drain = Drain(assignments=bench.assignments, session=self.session, timeout_s=timeout_s)
        bench.assignments.on_change = self.drain.check
        self.session.on_drain = self.drain.ordered
        self.session.on_connection = self._connection_changed

    def _connection_changed(self) -> None:
        if self.session.connected:
            self.drain.session_changed()


@asynccontextmanager
async def leaver(*links: MemoryLink, timeout_s: float = 5.0) -> AsyncIterator[Leaver]:
    async with workbench(reading=False) as bench:
        made = Leaver(bench, *links, timeout_s=timeout_s)
        running = asyncio.create_task(made.session.run(), name="session")
        if links:
            await made.session.wait_connected()
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def assign(number: int, sampling: Sampling) -> Assign:
    return Assign(
        number=number,
        attempt=Attempt(EPOCH, number),
        request_id="r",
        prompt_token_ids=PROMPT,
        sampling=sampling,
        text=TextOptions(),
    )


def kinds(link: MemoryLink) -> list[type]:
    return [type(message) for message in link.control if isinstance(message, DrainRequested | Drained | Goodbye)]


async def ends(link: MemoryLink) -> list[Ended]:
    async with asyncio.timeout(5):
        while not (found := [message for message in link.outputs if isinstance(message, Ended)]):
            await asyncio.sleep(0)
    return found


async def test_with_nothing_in_flight_it_leaves_at_once() -> None:
    link = MemoryLink()
    async with leaver(link) as made:
        await made.drain.leave("SIGTERM")
        assert kinds(link) == [DrainRequested, Drained, Goodbye]
        assert link.left


async def test_what_runs_is_finished_and_acknowledged_before_it_counts_as_drained() -> None:
    link = MemoryLink()
    async with leaver(link) as made:
        made.bench.assignments.assign(assign(1, SHORT))
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"), name="leaving")
        ended = (await ends(link))[0]
        assert ended.cause is EndCause.FINISHED
        assert kinds(link) == [DrainRequested]
        link.acknowledge(Ack(attempt_number=1, tokens=5, ended=True))
        await leaving
        assert kinds(link) == [DrainRequested, Drained, Goodbye]


async def test_what_outlasts_the_timeout_is_given_back() -> None:
    link = MemoryLink()
    async with leaver(link, timeout_s=0.01) as made:
        made.bench.assignments.assign(assign(1, ENDLESS))
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"), name="leaving")
        ended = (await ends(link))[0]
        assert (ended.cause, ended.message) == (EndCause.CANCELLED, "its executor left: SIGTERM")
        link.acknowledge(Ack(attempt_number=1, tokens=ended.total_tokens, ended=True))
        await leaving
        assert made.bench.engine.load().unfinished == 0


async def test_a_scheduler_that_acknowledges_nothing_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain_module, "ACKNOWLEDGE_TIMEOUT_S", 0.01)
    link = MemoryLink()
    async with leaver(link) as made:
        made.bench.assignments.assign(assign(1, SHORT))
        await made.drain.leave("SIGTERM")
        assert kinds(link) == [DrainRequested, Goodbye]


async def test_without_a_scheduler_there_is_nobody_to_say_goodbye_to() -> None:
    async with leaver() as made:
        await made.drain.leave("SIGTERM")


async def test_the_request_to_be_drained_is_said_again_in_the_next_session() -> None:
    first, second = MemoryLink(), MemoryLink()
    async with leaver(first, second) as made:
        made.bench.assignments.assign(assign(1, ENDLESS))
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"), name="leaving")
        await first.heard(DrainRequested)
        first.cut()
        await second.heard(DrainRequested)
        await second.heard(Drained)  # the second session kept nothing
        await leaving


async def test_an_ordered_drain_is_reported_once_and_can_be_taken_back() -> None:
    link = MemoryLink()
    async with leaver(link) as made:
        made.drain.ordered(resume=False)
        made.drain.check()
        await link.heard(Drained)
        assert made.bench.assignments.draining is True
        made.drain.ordered(resume=True)
        assert kinds(link) == [Drained]
        made.bench.assignments.assign(assign(1, SHORT))
        assert (await ends(link))[0].cause is EndCause.FINISHED


async def test_an_ordered_drain_binds_for_one_session() -> None:
    first, second = MemoryLink(), MemoryLink()
    async with leaver(first, second) as made:
        made.drain.ordered(resume=False)
        await first.heard(Drained)
        first.cut()
        while second.registered is None or not made.session.connected:
            await asyncio.sleep(0)
        assert not made.bench.assignments.draining


async def test_once_it_is_leaving_no_order_brings_it_back() -> None:
    link = MemoryLink()
    async with leaver(link) as made:
        made.bench.assignments.assign(assign(1, ENDLESS))
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"), name="leaving")
        await link.heard(DrainRequested)
        made.drain.ordered(resume=True)
        assert made.bench.assignments.draining
        made.bench.cancel(1)
        link.acknowledge(Ack(attempt_number=1, tokens=(await ends(link))[0].total_tokens, ended=True))
        await leaving
