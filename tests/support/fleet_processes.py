"""A scheduler and executors as real processes on free ports.  Whatever happens, none of them outlives the fleet."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sage_client import AsyncClient, Instance, InstanceState, SageError
from tests.support.eventually import eventually
from tests.support.service_process import ServiceProcess, of_family

SERVING_ON = r"serving on \S+ \(port (\d+)\)"
LEAVE_WITHIN_S = 30.0
GONE_WITHIN_S = 15.0


class FleetProcesses:
    """Made and left on any event loop; ``logs`` is a directory of its own.

    ``leave`` raises AssertionError if a process had to be killed to be rid of it.
    """

    def __init__(
        self,
        logs: Path,
        scheduler_flags: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        listen: str = "127.0.0.1:0",
    ) -> None:
        self.family = secrets.token_hex(8)
        self._logs = logs
        self.scheduler = ServiceProcess(
            "scheduler",
            "scheduler_svc",
            ("--listen", listen, *scheduler_flags),
            logs / "scheduler.log",
            family=self.family,
            environment=environment,
        )
        self.executors: dict[str, ServiceProcess] = {}
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self, **options: Any) -> AsyncClient:
        return AsyncClient(self.address, **options)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def start(self) -> None:
        """The scheduler; executors are added."""
        self.scheduler.start()
        try:
            self.port = int((await self.scheduler.said(SERVING_ON)).group(1))
            await self._healthy()
        except BaseException:
            await self.leave()
            raise

    async def _healthy(self) -> None:
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def launch(
        self,
        instance_id: str,
        flags: Sequence[str],
        *,
        address: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> ServiceProcess:
        """Start an executor without waiting for it."""
        process = ServiceProcess(
            instance_id,
            "executor_svc",
            ("--scheduler", address or self.address, "--instance-id", instance_id, *flags),
            self._logs / f"{instance_id}.log",
            family=self.family,
            environment=environment,
        )
        self.executors[instance_id] = process
        process.start()
        return process

    async def until(self, instance_id: str, *states: InstanceState, within_s: float = 30.0) -> Instance:
        """Wait until the scheduler has an instance in one of ``states``."""
        wanted = " or ".join(state.value for state in states)
        process = self.executors[instance_id]

        async def there() -> Instance | None:
            found = await self._look(client, instance_id)
            return found if found is not None and found.state in states else None

        async with self.client() as client:
            try:
                return await eventually(there, within_s=within_s, what=f"{instance_id} to be {wanted}", every_s=0.05)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{process.tail()}") from None

    async def _look(self, client: AsyncClient, instance_id: str) -> Instance | None:
        try:
            return await client.get_instance(instance_id)
        except SageError:
            return None

    async def ready(self, *instance_ids: str, within_s: float = 30.0) -> None:
        await asyncio.gather(*(self.until(name, InstanceState.READY, within_s=within_s) for name in instance_ids))

    async def leave(self) -> None:
        """SIGTERM to the executors, then to the scheduler; what does not go is killed, and is a failure."""
        executors = list(self.executors.values())
        try:
            for executor in executors:
                if executor.running:
                    executor.terminate()
            stubborn = [executor.name for executor in executors if not await self._gone(executor)]
            if self.scheduler.running:
                self.scheduler.terminate()
            if not await self._gone(self.scheduler):
                stubborn.append(self.scheduler.name)
        finally:
            left = of_family(self.family)
            for each in left:
                each.kill()
            for process in (*executors, self.scheduler):
                process.reap()
        assert not stubborn, f"had to be killed: {', '.join(stubborn)}; see {self._logs}"
        assert not left, f"left behind: {left}"

    async def _gone(self, process: ServiceProcess) -> bool:
        """Whether it and what it started end by themselves in their time."""
        try:
            if process.running:
                await process.ended(within_s=LEAVE_WITHIN_S)
            await process.alone(within_s=GONE_WITHIN_S)
        except AssertionError:
            return False
        return True
