"""kill -9 of schedulers and executors under a batch: each line has one result, and it is the right one."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import batch_pb2, inference_pb2
from tests.support.broken_call import is_break
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.postgres import running_postgres
from tests.support.process_supervisor import ProcessSupervisor
from tests.support.raw_batches import ENDED, RawBatches, jsonl, line
from tests.support.service_process import ServiceProcess
from tests.support.simulated_answer import answer
from tests.support.standby_fleet import StandbyFleet

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

NAMES = ("a", "b")
LINES = int(os.environ.get("SAGE_BATCH_LINES", "400"))
TOKENS = 10
WITHIN_S = 500.0


def prompt(number: int) -> str:
    return f"Long ago, number {number},"


def lines() -> list[dict[str, Any]]:
    return [line(str(number), prompt=prompt(number), max_tokens=TOKENS, ignore_eos=True) for number in range(LINES)]


class Reached:
    """Calls about batches to whichever scheduler answers."""

    def __init__(self, addresses: str) -> None:
        self._addresses = addresses.split(",")

    async def call(self, method: str, request: Any) -> Any:
        """Make a call once a scheduler takes it."""

        async def tried() -> Any:
            for address in self._addresses:
                async with grpc.aio.insecure_channel(address) as channel:
                    try:
                        return await getattr(RawBatches(channel).stub, method)(request, timeout=5)
                    except grpc.aio.AioRpcError as error:
                        if not is_break(error) and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                            raise
            return None

        return await eventually(tried, within_s=60, what=f"{method} to be answered", every_s=0.1)

    async def submit(self, channel: grpc.aio.Channel) -> None:
        """Upload the lines and submit them as the batch `b`."""
        file = (await RawBatches(channel).upload(jsonl(lines()), file_id="in")).file
        await self.call("SubmitBatch", inference_pb2.SubmitBatchRequest(batch_id="b", input_file_id=file.file_id))

    async def batch(self) -> batch_pb2.BatchView:
        found: batch_pb2.GetBatchResponse = await self.call("GetBatch", batch_pb2.GetBatchRequest(batch_id="b"))
        return found.batch

    async def done(self, share: float) -> batch_pb2.BatchView:
        """Wait until this share of the lines has a result."""

        async def found() -> batch_pb2.BatchView | None:
            batch = await self.batch()
            return batch if batch.state in ENDED or batch.counts.completed >= share * LINES else None

        return await eventually(found, within_s=WITHIN_S, what=f"{share:.0%} of the lines", every_s=0.1)


@pytest.mark.parametrize("victims", ["scheduler", "executors", "both", "handed_over"])
async def test_each_line_has_one_result(logs: Path, simulated: list[str], tmp_path: Path, victims: str) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--recovery.limit-s=5"]
    async with FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet:
        executors = [fleet.launch(name, [*simulated, "--engine.simulated.max-running=16"]) for name in NAMES]
        await fleet.ready(*NAMES)
        reached = Reached(fleet.address)
        async with grpc.aio.insecure_channel(fleet.address) as channel:
            await reached.submit(channel)
        async with ProcessSupervisor([fleet.scheduler, *executors]):
            for share in (0.2, 0.4, 0.6):
                assert (await reached.done(share)).state not in ENDED, "it is struck in the middle"
                _kill(victims, fleet.scheduler, executors)
            await _is_right(reached, fleet.address)


def _kill(victims: str, scheduler: ServiceProcess, executors: list[ServiceProcess]) -> None:
    if victims == "handed_over":
        scheduler.terminate()
        return
    if victims != "executors":
        scheduler.kill()
    if victims != "scheduler":
        for executor in executors:
            executor.kill()


async def test_the_standby_goes_on(logs: Path, simulated: list[str]) -> None:
    with running_postgres() as postgres:
        async with StandbyFleet(logs, postgres.url) as fleet:
            for name in NAMES:
                fleet.launch(name, [*simulated, "--engine.simulated.max-running=16"])
            await fleet.ready(*NAMES)
            leader = await fleet.leader()
            reached = Reached(fleet.address)
            async with grpc.aio.insecure_channel(fleet.addresses[leader]) as channel:
                await reached.submit(channel)
            assert (await reached.done(0.3)).state not in ENDED, "it is struck in the middle"
            leader.kill()
            await _is_right(reached, fleet.addresses[fleet.standby_of(leader)])


async def _is_right(reached: Reached, address: str) -> None:
    batch = await reached.done(1.0)
    batch = await reached.done(2.0) if batch.state not in ENDED else batch
    assert batch.state == batch_pb2.BATCH_STATE_COMPLETED
    assert (batch.counts.total, batch.counts.completed, batch.counts.failed) == (LINES, LINES, 0)
    async with grpc.aio.insecure_channel(address) as channel:
        results = await eventually(lambda: _results(channel, batch), within_s=60, what="the results")
    assert results.keys() == {str(number) for number in range(LINES)}
    for number in Random(0).sample(range(LINES), min(LINES, 100)):
        wanted = await answer(prompt(number), Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True))
        assert results[str(number)]["response"]["body"]["choices"][0]["text"] == wanted.text


async def _results(channel: grpc.aio.Channel, batch: batch_pb2.BatchView) -> dict[str, Any] | None:
    try:
        return await RawBatches(channel).results(batch.output_file_id)
    except grpc.aio.AioRpcError:
        return None
