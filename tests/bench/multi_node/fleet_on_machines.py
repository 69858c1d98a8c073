"""A fleet on a Ray cluster of three machines, with a scheduler beside it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from sage_client import AsyncClient, InstanceState, SageError
from tests.bench.child import ChildFailed
from tests.bench.multi_node.devices import FIRST, Devices
from tests.support.cpu_on_ray import install
from tests.support.fleet_processes import FleetProcesses
from tests.support.ray_machines import RayMachines

START_TIMEOUT_S = 150
DRAIN_TIMEOUT_S = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetOnMachines:
    """What a step of the measurement acts on."""

    devices: Devices
    machines: RayMachines
    client: AsyncClient
    file: Path  # fleet.yaml
    scheduler: str  # its address for the machines

    async def apply(self, *groups: str) -> float:
        """Have the fleet consist of these groups; return the seconds until all are READY."""
        described = {
            "name": "bench",
            "place": "ray",
            "scheduler": {"address": self.scheduler, "insecure": True},
            "ray": {"address": self.machines.address, "gpus_per_node": 1},
            "start_timeout_s": START_TIMEOUT_S,
            "drain_timeout_s": DRAIN_TIMEOUT_S,
            "groups": {name: self.devices.group(name) for name in groups},
        }
        self.file.write_text(json.dumps(described))
        began = time.monotonic()
        await self.sagectl("fleet", "apply", str(self.file))
        return time.monotonic() - began

    async def sagectl(self, *arguments: str) -> str:
        """Run a command on the first machine and return what it said.  Raises ChildFailed if it fails."""
        process = await asyncio.create_subprocess_exec(
            *self.machines.command(FIRST, sys.executable, "-m", "sagectl", *arguments),
            env=self.machines.environment(FIRST),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            raise ChildFailed(f"sagectl {' '.join(arguments)}: {said.decode(errors='replace')[-2_000:]}")
        return said.decode(errors="replace")

    def executors(self, machine: int) -> set[psutil.Process]:
        """The executors on a machine, without their engines."""
        return set(self.machines.processes(machine, "-m executor_svc"))

    def workers(self, machine: int) -> set[psutil.Process]:
        """The workers that an engine over several machines has on one of them."""
        return set(self.machines.processes(machine, "ray::RayWorkerProc"))

    async def state(self, name: str) -> InstanceState | None:
        """Return an instance's state; None if the scheduler does not know it."""
        try:
            return (await self.client.get_instance(name)).state
        except SageError:
            return None


@asynccontextmanager
async def fleet_on_machines(devices: Devices, *, isolated: bool) -> AsyncIterator[FleetOnMachines]:
    """Up: three machines and a scheduler, without an executor."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        plugins = [scratch / "plugin"] if devices.on_cpu else []
        for folder in plugins:
            install(folder)
        machines = stack.enter_context(RayMachines(devices.machines, isolated=isolated, paths=plugins))
        services = await stack.enter_async_context(
            FleetProcesses(scratch, ("--insecure",), listen=f"{'0.0.0.0' if isolated else '127.0.0.1'}:0")
        )
        client = await stack.enter_async_context(services.client())
        yield FleetOnMachines(
            devices=devices,
            machines=machines,
            client=client,
            file=scratch / "fleet.yaml",
            scheduler=f"{machines.host}:{services.port}",
        )
