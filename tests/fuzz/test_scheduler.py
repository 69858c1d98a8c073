"""Mutated messages to every RPC of a scheduler, while normal clients use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.fuzz.client_session import SESSION, client_session
from tests.fuzz.contract_rpcs import contract_rpcs
from tests.fuzz.findings import Findings
from tests.fuzz.flat_memory import assert_flat
from tests.fuzz.fuzzed_fleet import REAL, FuzzedFleet, identities
from tests.fuzz.fuzzer import Fuzzer, Script
from tests.fuzz.known_values import KnownValues
from tests.fuzz.plausible_messages import MODEL, ROGUES
from tests.fuzz.rogue_executor import CONTROL, OUTPUTS, RogueExecutor
from tests.fuzz.run import Run
from tests.fuzz.witnesses import Witnesses
from tests.integration.system.local_fleet import LocalFleet

CHANNELS = 3
WEIGHTS = {
    "Generate": 10,
    "Session": 10,
    "Control": 5,
    "Outputs": 2,
    "Cancel": 2,
    "Submit": 5,
    "Attach": 2,
    "Explain": 2,
    "WatchFleet": 2,
}


@pytest.mark.timeout(0)  # the number of messages decides
async def test_mutated_messages_hurt_nobody(tmp_path: Path, fuzz_run: Run) -> None:
    known = known_values()
    with Findings() as findings:
        async with FuzzedFleet(tmp_path) as fleet:
            await fleet.add_real()
            fuzzer = make_fuzzer(fuzz_run.seed, known, findings)
            witnesses = Witnesses(fleet.new_client(token="key-witness"), findings, known)
            await witnesses.prepare()
            async with witnessed(witnesses, fleet):
                await send(fuzzer, [fleet.channel() for _ in range(CHANNELS)], fuzz_run)
            await fleet.until_idle()
        await findings.tasks_left()
    fuzz_run.report(fuzzer, f"{witnesses.finished} witnesses finished")
    assert findings.told == [], fuzz_run.how_to_repeat
    assert witnesses.finished > 0
    if fuzz_run.meets_every_rpc:
        assert set(fuzzer.messages) >= {rpc.path for rpc in contract_rpcs()}


async def test_every_service_that_a_scheduler_lists_is_fuzzed() -> None:
    async with LocalFleet() as fleet:
        channel: Any = fleet.channel()  # the stubs have the synchronous one
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = (await call.read()).list_services_response.service
    assert {service.name for service in listed} <= {rpc.service for rpc in contract_rpcs()}


def make_fuzzer(seed: int, known: KnownValues, findings: Findings) -> Fuzzer:
    rpcs = {rpc: WEIGHTS.get(rpc.method, 1) for rpc in contract_rpcs()}
    outputs = next(rpc for rpc in rpcs if rpc.path == OUTPUTS)
    scripts: dict[str, Script] = {CONTROL: RogueExecutor(outputs), SESSION: client_session}
    return Fuzzer(seed=seed, rpcs=rpcs, identities=identities, known=known, findings=findings, scripts=scripts)


def known_values() -> KnownValues:
    rogues = [f"rogue-{number}" for number in range(ROGUES)]
    return KnownValues(
        instance_id=[*REAL, *rogues],
        model=[MODEL, *rogues],
        tenant=["", "fuzz", "fuzz-1", "witness"],
        policy=["fifo", "priority", "slo_aware", "cost_optimized", "adaptive", "least_requests", "round_robin"],
        service=["", "sage.controlplane.v1.InferenceService", "grpc.health.v1.Health"],
        file_containing_symbol=["sage.controlplane.v1.AdminService", "sage.controlplane.v1.GenerateRequest"],
        file_by_filename=["sage/controlplane/v1/admin.proto"],
    )


async def send(fuzzer: Fuzzer, channels: list[grpc.aio.Channel], fuzz_run: Run) -> None:
    if fuzz_run.only:
        for number in fuzz_run.only:
            await fuzzer.one(number, channels[0])
    else:
        await assert_flat(lambda count: fuzzer.run(channels, count), fuzz_run.for_scheduler)


@asynccontextmanager
async def witnessed(witnesses: Witnesses, fleet: FuzzedFleet) -> AsyncIterator[None]:
    """Run the witnesses, and the operator who undoes what the fuzzer does to the executors that serve them."""
    undoing = asyncio.create_task(fleet.undo(), name="undo")
    running = asyncio.create_task(witnesses.run(), name="witnesses")
    try:
        yield
    finally:
        witnesses.stop()
        await running
        undoing.cancel()
        await asyncio.gather(undoing, return_exceptions=True)
