"""A split request over real gRPC: the test is the scheduler of a prefill and a decode executor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from sage.controlplane.v1 import common_pb2, executor_pb2
from tests.integration.executor.running_executor import RunningExecutor, executor
from tests.integration.executor.scripted_scheduler import Session, scripted_scheduler
from tests.support.eventually import eventually

PROMPT = [300 + n for n in range(100)]
CONNECTED = ("--engine.simulated.kv-transfer.connector", "NixlConnector")
QUICK = ("--engine.simulated.kv-transfer.handshake-s", "0.01", "--engine.simulated.kv-transfer.lease-s", "20")


@dataclass
class Split:
    prefill: Session
    decode: Session
    engines: tuple[RunningExecutor, RunningExecutor]

    async def prefilled(self, number: int) -> executor_pb2.AssignmentEnded:
        self.prefill.assign(number, prompt=PROMPT, phase=common_pb2.PHASE_PREFILLING)
        return await self.prefill.ended(number)

    def kv_used(self) -> tuple[int, ...]:
        return tuple(one.engine.load().kv_used_tokens for one in self.engines)


@asynccontextmanager
async def split() -> AsyncIterator[Split]:
    async with (
        scripted_scheduler() as first,
        scripted_scheduler() as second,
        executor(first.address, *CONNECTED, *QUICK, "--role", "prefilling") as prefill,
        executor(second.address, *CONNECTED, *QUICK, "--role", "decoding") as decode,
    ):
        sessions = [await scheduler.session() for scheduler in (first, second)]
        for session in sessions:
            facts = (await session.ready()).facts
            assert facts.kv_connector == "NixlConnector"
            assert facts.compatibility_key
        yield Split(prefill=sessions[0], decode=sessions[1], engines=(prefill, decode))


async def test_a_request_is_prefilled_here_and_decoded_there() -> None:
    async with split() as ends:
        ends.prefill.assign(1, prompt=PROMPT)
        await ends.prefill.ended(1)
        ended = await ends.prefilled(2)
        assert (ended.cause, ended.total_tokens) == (executor_pb2.AssignmentEnded.CAUSE_FINISHED, 0)
        assert ends.prefill.pieces(2) == []
        assert 15 < ended.kv_lease.ToTimedelta().total_seconds() <= 20
        ends.decode.assign(
            2,
            prompt=PROMPT,
            phase=common_pb2.PHASE_DECODING,
            kv_transfer_params=ended.kv_transfer_params,
            kv_lease=ended.kv_lease,
        )
        await ends.decode.ended(2)
        assert ends.decode.token_ids(2) == ends.prefill.token_ids(1)
        assert ends.decode.text(2) == ends.prefill.text(1)
        await eventually(lambda: ends.kv_used() == (0, 0))


async def test_a_handoff_nobody_fetches_is_released_through_the_other_end() -> None:
    async with split() as ends:
        ended = await ends.prefilled(1)
        assert ends.kv_used()[0] > 0
        for number in (5, 6):
            release = executor_pb2.ReleaseKv(number=number, kv_transfer_params=ended.kv_transfer_params)
            ends.decode.send(release_kv=release)
        first, again = await ends.decode.until(lambda: (found := ends.decode.heard("kv_released"))[1:] and found)
        assert {first.number, again.number} == {5, 6}
        assert sorted((first.released, again.released)) == [False, True]
        assert ends.kv_used() == (0, 0)


@pytest.mark.parametrize("tampered", [b"{", b'{"host": "127.0.0.1"}'])
async def test_a_handoff_that_was_changed_is_no_fault_of_the_caller(tampered: bytes) -> None:
    async with split() as ends:
        ends.decode.assign(1, prompt=PROMPT, phase=common_pb2.PHASE_DECODING, kv_transfer_params=tampered)
        assert (await ends.decode.ended(1)).cause == executor_pb2.AssignmentEnded.CAUSE_FAILED
        ends.decode.send(release_kv=executor_pb2.ReleaseKv(number=5, kv_transfer_params=tampered))
        [answer] = await ends.decode.until(lambda: ends.decode.heard("kv_released"))
        assert not answer.released
        assert "handoff" in answer.message


async def test_a_prefill_executor_that_is_gone_costs_time_and_no_token() -> None:
    async with split() as ends:
        ends.prefill.assign(1, prompt=PROMPT)
        await ends.prefill.ended(1)
        ended = await ends.prefilled(2)
        ends.engines[0].engine.inject(Fault(kind=FaultKind.DIE))
        ends.decode.assign(
            2, prompt=PROMPT, phase=common_pb2.PHASE_DECODING, kv_transfer_params=ended.kv_transfer_params
        )
        decoded = await ends.decode.ended(2)
        assert "could not be fetched" in decoded.message
        assert ends.decode.token_ids(2) == ends.prefill.token_ids(1)


async def test_the_lease_said_after_a_reconnect_is_what_is_left_then() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address, *CONNECTED) as prefill:
        scheduler.acknowledges_ends = False
        session = await scheduler.session()
        await session.ready()
        session.assign(1, prompt=PROMPT, phase=common_pb2.PHASE_PREFILLING)
        first = await session.ended(1)
        scheduler.keep = lambda register: [held.attempt for held in register.held]
        session.cut()
        again = await scheduler.session(1)
        again.resume(1, 0)
        second = await again.ended(1)
        assert json.loads(second.kv_transfer_params) == json.loads(first.kv_transfer_params)
        assert second.kv_lease.ToNanoseconds() < first.kv_lease.ToNanoseconds()
        assert prefill.engine.load().kv_used_tokens > 0


async def test_an_embedding_executor_generates_for_nobody() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address, "--role", "embedding"):
        session = await scheduler.session()
        await session.ready()
        session.assign(1)
        [rejected] = await session.until(lambda: session.about("rejected", 1))
        assert "role embedding" in rejected.message
