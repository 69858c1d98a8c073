"""Every kind of fault, one after the other in a random order, under every kind of client and request."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sage_client import AsyncClient
from tests.bench.free_port import free_port
from tests.chaos.faults import Faults
from tests.chaos.gaps import Gaps
from tests.chaos.report import Report
from tests.chaos.restart_load import RestartLoad
from tests.chaos.test_restarts_under_load import LEGS, NAMES, SPLITTING, all_is_free
from tests.support.fleet_processes import FleetProcesses
from tests.support.network_proxy import NetworkProxy
from tests.support.process_supervisor import ProcessSupervisor

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1_200)]

EACH = 4  # clients of each sort
SLOW = VANISHING = 2


async def test_nothing_is_doubled_or_changed_and_what_is_lost_is_told(
    logs: Path, simulated: list[str], tmp_path: Path, seconds: float, seed: int
) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo", "--instance.adopt-s=30", *SPLITTING]
    async with AsyncExitStack() as stack:
        fleet = FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}")
        await stack.enter_async_context(fleet)
        links = [await stack.enter_async_context(NetworkProxy(fleet.port)) for _ in NAMES]
        clients_link = await stack.enter_async_context(NetworkProxy(fleet.port))
        sessions = await stack.enter_async_context(AsyncClient(clients_link.address))
        calls = await stack.enter_async_context(fleet.client(use_sessions=False))
        watcher = await stack.enter_async_context(fleet.client())
        executors = [
            fleet.launch(name, [*simulated, *LEGS], address=link.address)
            for name, link in zip(NAMES, links, strict=True)
        ]
        await fleet.ready(*NAMES)
        gaps = Gaps()
        load = RestartLoad(
            fleet.address, sessions, calls, each=EACH, seed=seed, gaps=gaps, slow=SLOW, vanishing=VANISHING
        )
        faults = Faults(fleet.scheduler, executors, links, clients_link, watcher, gaps, random.Random(seed))
        report = Report(seed, seconds, load.tally, gaps, faults.detected)
        try:
            async with ProcessSupervisor([fleet.scheduler, *executors]), asyncio.TaskGroup() as group:
                group.create_task(load.run(), name="load")
                await faults.strike(seconds)
                load.stop()
        except* AssertionError as wrong:
            report.wrong += [str(each) for each in wrong.exceptions]
            raise
        finally:
            print(report)
            if path := os.environ.get("SAGE_CHAOS_REPORT"):
                report.append_to(Path(path))
        await all_is_free(fleet, watcher)
