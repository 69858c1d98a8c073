"""Two schedulers on one PostgreSQL, and executors that know both, as real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc
from tests.support.eventually import eventually
from tests.support.fleet_processes import SERVING_ON, FleetProcesses
from tests.support.free_port import free_ports
from tests.support.service_process import ServiceProcess

LEASE_S = 2.0


class StandbyFleet(FleetProcesses):
    """``scheduler`` and ``other`` are equals; ``leader`` tells which of them leads."""

    def __init__(
        self, logs: Path, url: str, flags: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
    ) -> None:
        ports = free_ports(2)
        shared = ("--journal.url", url, "--leadership.lease-s", str(LEASE_S), *flags)
        super().__init__(logs, shared, environment=environment, listen=f"127.0.0.1:{ports[0]}")
        self.other = ServiceProcess(
            "other",
            "scheduler_svc",
            ("--listen", f"127.0.0.1:{ports[1]}", *shared),
            logs / "other.log",
            family=self.family,
            environment=environment,
        )
        self.addresses = {self.scheduler: f"127.0.0.1:{ports[0]}", self.other: f"127.0.0.1:{ports[1]}"}

    def port_of(self, process: ServiceProcess) -> int:
        return int(self.addresses[process].rpartition(":")[2])

    @property
    def address(self) -> str:
        """Both addresses, as clients and executors take them."""
        return ",".join(self.addresses.values())

    async def _healthy(self) -> None:
        self.other.start()
        await self.other.said(SERVING_ON)

    async def leader(self, *, within_s: float = 30.0) -> ServiceProcess:
        """Return the scheduler that leads, once one does."""

        async def found() -> ServiceProcess | None:
            for process in self.addresses:
                if process.running and await self.state(process) in (
                    admin_pb2.GetSchedulerResponse.STATE_LEADING,
                    admin_pb2.GetSchedulerResponse.STATE_RECOVERING,
                ):
                    return process
            return None

        return await eventually(found, within_s=within_s, what="a scheduler to lead", every_s=0.05)

    async def state(self, process: ServiceProcess) -> int:
        """Return what a scheduler says that it does; 0 if it does not answer."""
        async with grpc.aio.insecure_channel(self.addresses[process]) as channel:
            try:
                answer = await admin_pb2_grpc.AdminServiceStub(channel).GetScheduler(
                    admin_pb2.GetSchedulerRequest(), timeout=1
                )
            except grpc.aio.AioRpcError:
                return 0
        return answer.state

    def standby_of(self, leader: ServiceProcess) -> ServiceProcess:
        return next(each for each in self.addresses if each is not leader)

    async def leave(self) -> None:
        if self.other.running:
            self.other.terminate()
            await self.other.ended()
        await super().leave()
        self.other.reap()


def pause(process: ServiceProcess) -> None:
    """Stop a process where it is, as a host does that is suspended."""
    os.kill(process.pid, signal.SIGSTOP)


def resume(process: ServiceProcess) -> None:
    os.kill(process.pid, signal.SIGCONT)
