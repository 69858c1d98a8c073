"""kill -9 of the scheduler under the SDK's ``run_batch``: in the middle of the upload, and while it waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage_client import Batch, BatchState, Reconnect
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.process_supervisor import ProcessSupervisor
from tests.support.service_process import ServiceProcess
from tests.support.simulated_answer import answer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

LINES = 60
TOKENS = 40
PADDING = "x" * 100_000  # a line is as long as many messages of the stream
PATIENT = Reconnect(attempts=60)


def prompt(number: int) -> str:
    return f"Long ago, number {number},"


def line(number: int) -> bytes:
    body = {"prompt": prompt(number), "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, "user": PADDING}
    request = {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(request).encode() + b"\n"


class Lines:
    """The batch's content; when it is first read, the scheduler dies in the middle."""

    def __init__(self, victim: ServiceProcess) -> None:
        self._victim: ServiceProcess | None = victim

    def __iter__(self) -> Iterator[bytes]:
        for number in range(LINES):
            if number == LINES // 2 and self._victim is not None:
                self._victim.kill()
                self._victim = None
            yield line(number)


async def test_each_line_has_one_answer(logs: Path, simulated: list[str], tmp_path: Path) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo", "--recovery.limit-s=5"]
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client(reconnect=PATIENT, timeout=60) as client,
    ):
        fleet.launch("a", [*simulated, "--engine.simulated.max-running=4"])
        await fleet.ready("a")
        kills = 0

        def kill_in_the_middle(batch: Batch) -> None:
            nonlocal kills
            if not kills and batch.counts.completed >= LINES // 4:
                kills += 1
                fleet.scheduler.kill()

        async with ProcessSupervisor([fleet.scheduler]) as supervisor:
            outcome = await client.run_batch(
                Lines(fleet.scheduler), batch_id="b", on_progress=kill_in_the_middle, poll=0.2, timeout=120
            )
        assert (len(supervisor.statuses), kills) == (2, 1)
        assert outcome.batch.state is BatchState.COMPLETED
        assert sorted(int(each.custom_id) for each in outcome) == list(range(LINES))
        sampling = Sampling(temperature=0, max_tokens=TOKENS, ignore_eos=True)
        wanted = await asyncio.gather(*(answer(prompt(int(each.custom_id)), sampling) for each in outcome))
        assert [each.text for each in outcome] == [each.text for each in wanted]
