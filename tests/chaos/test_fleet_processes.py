"""The support these tests lean on: no process outlives its fleet, and one that would is a failure."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.service_process import of_family

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

HOLDER = """
import asyncio, sys
from pathlib import Path
from tests.support.fleet_processes import FleetProcesses

async def main():
    fleet = FleetProcesses(Path(sys.argv[1]))
    await fleet.start()
    fleet.launch("a", sys.argv[2:])
    await fleet.ready("a")
    print(fleet.family, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_fleet_leaves_nothing_behind(logs: Path, simulated: list[str]) -> None:
    async with FleetProcesses(logs) as fleet:
        fleet.launch("a", simulated)
        await fleet.ready("a")
        assert len(of_family(fleet.family)) == 2
    assert of_family(fleet.family) == []
    assert [fleet.scheduler.exit_status, fleet.executors["a"].exit_status] == [0, 0]


async def test_a_process_that_does_not_leave_is_killed_and_fails_the_test(
    logs: Path, simulated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.fleet_processes.LEAVE_WITHIN_S", 1.0)
    fleet = FleetProcesses(logs)
    await fleet.start()
    stuck = fleet.launch("a", simulated)
    await fleet.ready("a")
    os.kill(stuck.pid, signal.SIGSTOP)
    with pytest.raises(AssertionError, match="had to be killed: a"):
        await fleet.leave()
    assert of_family(fleet.family) == []


def test_a_run_of_tests_that_is_killed_takes_its_fleet_along(logs: Path, simulated: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(logs), *simulated], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        family = holder.stdout.readline().strip()
        assert len(of_family(family)) == 2
        assert psutil.Process(holder.pid).is_running()
        holder.kill()
    asyncio.run(eventually(lambda: of_family(family) == [], within_s=20, what="its fleet to leave", every_s=0.1))
