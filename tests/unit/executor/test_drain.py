"""Leaving in order, and being told to drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from executor_svc.engine.simulated.settings import SimulatedKvTransferSettings
from executor_svc.runtime import drain as drain_module
from executor_svc.runtime.drain import Drain
from executor_svc.runtime.engine_port import Sampling
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign, Phase, TextOptions
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ack,
    EndCause,
    Ended,
    Rejected,
    RejectReason,
)
from executor_svc.runtime.messages.registration import Identity, Role
from executor_svc.runtime.messages.reports import Drained, DrainRequested, Goodbye
from executor_svc.runtime.session.load_meter import LoadMeter
from executor_svc.runtime.session.loop_lag import LoopLag
from executor_svc.runtime.session.session import Session
from executor_svc.runtime.session.timings import SessionTimings
from sage_common.clock import AsyncioClock
from tests.unit.executor.memory_link import MemoryDialer, MemoryLink
from tests.unit.executor.workbench import EPOCH, PROMPT, Workbench, workbench

ENDLESS = Sampling(temperature=0, max_tokens=4000, ignore_eos=True)
KEEPS_KV: dict[str, Any] = {
    "kv_transfer": SimulatedKvTransferSettings(connector="NixlConnector", lease_s=600.0),
    "clock": AsyncioClock(),
}
SHORT = Sampling(temperature=0, max_tokens=5, ignore_eos=True)


class Leaver:
    """A workbench whose output goes to a link, and the drain of it."""

    def __init__(self, bench: Workbench, *links: MemoryLink, timeout_s: float) -> None:
        self.bench = bench
        self.session = Session(
            identity=Identity(instance_id="one", engine_start_id="e", role=Role.GENERAL, model="sim"),
            addresses=["nowhere"],
            dialer=MemoryDialer(*links),
            attempts=bench.attempts,
            outbox=bench.outbox,
            meter=LoadMeter(LoopLag()),
            timings=SessionTimings(first_retry_s=0.001, most_retry_s=0.01),
        )
        self.drain = Drain(
            attempts=bench.attempts,
            session=self.session,
            timeout_s=timeout_s,
            kv_used_tokens=lambda: bench.engine.load().kv_used_tokens,
        )
        bench.attempts.on_change = self.drain.check
        self.session.on_drain = self.drain.ordered
        self.session.on_connection = self._connection_changed

    def _connection_changed(self) -> None:
        if self.session.connected:
            self.drain.session_changed()


@asynccontextmanager
async def leaver(*links: MemoryLink, timeout_s: float = 5.0, **settings: Any) -> AsyncIterator[Leaver]:
    async with workbench(reading=False, **settings) as bench:
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
        attempt=AttemptId(EPOCH, number),
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
        made.bench.attempts.assign(assign(1, SHORT))
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"), name="leaving")
        ended = (await ends(link))[0]
        assert ended.cause is EndCause.FINISHED
        assert kinds(link) == [DrainRequested]
        link.acknowledge(Ack(attempt=AttemptId(EPOCH, 1), tokens=5, ended=True))
        await leaving
        assert kinds(link) == [DrainRequested, Drained, Goodbye]


async def test_what_outlasts_the_timeout_is_given_back() -> None:
    link = MemoryLink()
    async with leaver(link, timeout_s=0.01) as made:
        made.bench.attempts.assign(assign(1, ENDLESS))
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"), name="leaving")
        ended = (await ends(link))[0]
        assert (ended.cause, ended.message) == (EndCause.CANCELLED, "its executor left: SIGTERM")
        link.acknowledge(Ack(attempt=AttemptId(EPOCH, 1), tokens=ended.total_tokens, ended=True))
        await leaving
        assert made.bench.engine.load().unfinished == 0


async def test_a_scheduler_that_acknowledges_nothing_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain_module, "ACKNOWLEDGE_TIMEOUT_S", 0.01)
    link = MemoryLink()
    async with leaver(link) as made:
        made.bench.attempts.assign(assign(1, SHORT))
        await made.drain.leave("SIGTERM")
        assert kinds(link) == [DrainRequested, Goodbye]


async def test_without_a_scheduler_there_is_nobody_to_say_goodbye_to() -> None:
    async with leaver() as made:
        await made.drain.leave("SIGTERM")


async def test_the_request_to_be_drained_is_said_again_in_the_next_session() -> None:
    first, second = MemoryLink(), MemoryLink()
    async with leaver(first, second) as made:
        made.bench.attempts.assign(assign(1, ENDLESS))
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
        assert made.bench.attempts.draining is True
        made.drain.ordered(resume=True)
        assert kinds(link) == [Drained]
        made.bench.attempts.assign(assign(1, SHORT))
        assert (await ends(link))[0].cause is EndCause.FINISHED


async def test_an_ordered_drain_binds_for_one_session() -> None:
    first, second = MemoryLink(), MemoryLink()
    async with leaver(first, second) as made:
        made.drain.ordered(resume=False)
        await first.heard(Drained)
        first.cut()
        while second.registered is None or not made.session.connected:
            await asyncio.sleep(0)
        assert not made.bench.attempts.draining


async def test_once_it_is_leaving_no_order_brings_it_back() -> None:
    link = MemoryLink()
    async with leaver(link) as made:
        made.bench.attempts.assign(assign(1, ENDLESS))
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"), name="leaving")
        await link.heard(DrainRequested)
        made.drain.ordered(resume=True)
        assert made.bench.attempts.draining
        made.bench.cancel(1)
        link.acknowledge(Ack(attempt=AttemptId(EPOCH, 1), tokens=(await ends(link))[0].total_tokens, ended=True))
        await leaving


# --- KV that was left for others ------------------------------------------------------------------------------------


def prefill_leg(number: int) -> Assign:
    return replace(assign(number, SHORT), phase=Phase.PREFILLING)


async def left_behind(made: Leaver, link: MemoryLink) -> Ended:
    """A prefill leg is over, and its end acknowledged."""
    made.bench.attempts.assign(prefill_leg(1))
    (ended,) = await ends(link)
    assert ended.kv_transfer_params is not None
    link.acknowledge(Ack(attempt=AttemptId(EPOCH, 1), tokens=0, ended=True))
    return ended


async def test_it_stays_until_the_kv_it_left_for_others_is_fetched() -> None:
    link = MemoryLink()
    async with leaver(link, **KEEPS_KV) as made:
        ended = await left_behind(made, link)
        leaving = asyncio.create_task(made.drain.leave("SIGTERM"))
        await link.heard(DrainRequested)
        await asyncio.sleep(5 * drain_module.KV_POLL_S)
        assert not leaving.done()
        assert ended.kv_transfer_params is not None
        assert await made.bench.engine.release_kv(ended.kv_transfer_params)
        async with asyncio.timeout(5):
            await leaving
        assert kinds(link)[-1] is Goodbye


async def test_kv_that_nobody_fetches_is_not_waited_for_beyond_the_drain(caplog: pytest.LogCaptureFixture) -> None:
    link = MemoryLink()
    async with leaver(link, timeout_s=0.1, **KEEPS_KV) as made:
        await left_behind(made, link)
        async with asyncio.timeout(5):
            await made.drain.leave("SIGTERM")
        assert "KV kept for other engines was not fetched in 0.1 s" in caplog.text


async def test_kv_is_not_waited_for_beyond_its_lease() -> None:
    link = MemoryLink()
    async with leaver(link, timeout_s=60.0, **KEEPS_KV) as made:
        await left_behind(made, link)
        made.bench.attempts.kv_kept_until = asyncio.get_running_loop().time() + 0.1
        async with asyncio.timeout(5):
            await made.drain.leave("SIGTERM")


async def test_a_draining_executor_takes_on_decode_legs_whose_room_was_reserved_before() -> None:
    link = MemoryLink()
    async with leaver(link, **KEEPS_KV) as made:
        ended = await left_behind(made, link)
        made.drain.ordered(resume=False)
        whole, decode = assign(2, SHORT), replace(assign(3, SHORT), phase=Phase.DECODING, kv_lease_s=20.0)
        made.bench.attempts.assign(whole)
        made.bench.attempts.assign(replace(decode, kv_transfer_params=ended.kv_transfer_params))
        async with asyncio.timeout(5):
            while not any(isinstance(message, Accepted) and message.attempt.number == 3 for message in link.outputs):
                await asyncio.sleep(0)
        (rejected,) = [message for message in link.outputs if isinstance(message, Rejected)]
        assert (rejected.attempt.number, rejected.reason) == (2, RejectReason.DRAINING)
