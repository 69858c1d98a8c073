"""Mutated messages to an executor, from its scheduler and from whoever reaches its health service."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from executor_svc.config import ExecutorConfig
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from tests.fuzz.contract_rpcs import Rpc, executors_rpcs
from tests.fuzz.findings import Findings
from tests.fuzz.flat_memory import assert_flat
from tests.fuzz.fuzzed_fleet import ENGINE
from tests.fuzz.fuzzer import Fuzzer, Identity
from tests.fuzz.known_values import KnownValues
from tests.fuzz.plausible_messages import MODEL
from tests.fuzz.rogue_scheduler import RogueScheduler
from tests.fuzz.run import Run
from tests.integration.system.local_fleet import LocalExecutor
from tests.support.eventually import eventually
from tests.support.simulated_answer import ENDLESS

HEALTH_SHARE = 0.1  # of the messages
STALLED_S = 120.0  # for one part of the messages


@pytest.mark.timeout(0)  # the number of messages decides
async def test_a_hostile_scheduler_does_not_end_an_executor(fuzz_run: Run) -> None:
    if fuzz_run.only:
        pytest.skip("the numbers of calls are those of test_scheduler.py")
    with Findings() as findings:
        async with RogueScheduler(fuzz_run.seed, findings) as rogue:
            executor = started(rogue)
            health = Fuzzer(
                seed=fuzz_run.seed,
                rpcs=dict.fromkeys(executors_rpcs(), 1),
                identities=anyone,
                known=KnownValues(service=["", "sage.controlplane.v1.InferenceService"]),
                findings=findings,
            )
            await eventually(lambda: rogue.executor_address, what="the executor to register")
            async with grpc.aio.insecure_channel(rogue.executor_address) as channel:
                await assert_flat(lambda count: send(rogue, executor, health, channel, count), fuzz_run.for_executor)
            await proper_again(rogue, executor)
            rogue.leaving = True
            await executor.end()
        await findings.tasks_left()
    fuzz_run.report(health, f"{dict(rogue.messages)} from the scheduler; {rogue.witnessed} witnesses finished")
    assert findings.told == [], fuzz_run.how_to_repeat


def started(rogue: RogueScheduler) -> LocalExecutor:
    simulated = SimulatedSettings(mean_output_tokens=ENDLESS.mean_output_tokens, **ENGINE)
    engine = EngineSettings(kind="simulated", model=ModelSettings(model=MODEL), simulated=simulated)
    config = ExecutorConfig(instance_id="real-1", scheduler=(rogue.address,), engine=engine, role="hybrid")
    executor = LocalExecutor(config, None)
    executor.start()
    return executor


def anyone(rpc: Rpc) -> tuple[list[Identity], list[Identity]]:
    nobody = [Identity(name="nobody", metadata=())]
    return nobody, nobody


async def send(
    rogue: RogueScheduler, executor: LocalExecutor, health: Fuzzer, channel: grpc.aio.Channel, count: int
) -> None:
    """Let the scheduler and the health service's callers send ``count`` messages together."""
    end = rogue.messages.total() + round(count * (1 - HEALTH_SHARE))
    await health.run([channel], round(count * HEALTH_SHARE))
    last, since = -1, 0.0
    while rogue.messages.total() < end:
        assert executor.running, f"the executor ended: {await executor.exit_status()}; {health.findings.told}"
        now = asyncio.get_running_loop().time()
        if rogue.messages.total() != last:
            last, since = rogue.messages.total(), now
        assert now - since < STALLED_S, "the executor does not dial any more"
        await asyncio.sleep(0.05)


async def proper_again(rogue: RogueScheduler, executor: LocalExecutor) -> None:
    """Wait until two proper sessions, with nothing else between them, had their answers."""
    rogue.proper.set()
    wanted = rogue.witnessed + 2
    await eventually(lambda: rogue.witnessed >= wanted, within_s=60.0, what="proper sessions")
    assert executor.running
