"""The OpenAI gateway to measure, as its users run it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.child import Child, child
from tests.bench.cpu_clock import cpu_seconds
from tests.support.free_port import free_port

START_TIMEOUT_S = 120.0


class GatewayProcesses:
    """A gateway that serves: one process, or one that has several workers."""

    def __init__(self, process: Child, port: int) -> None:
        self.port = port
        self._process = process

    @property
    def pids(self) -> list[int]:
        """Its process and its workers."""
        found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [self._process.pid, *map(int, found.split())]

    def cpu_s(self) -> float:
        """CPU seconds that all of them have used so far."""
        return sum(map(cpu_seconds, self.pids))


@asynccontextmanager
async def gateway(
    address: str, model: str, *, workers: int = 1, flags: Sequence[str] = ()
) -> AsyncIterator[GatewayProcesses]:
    """A gateway of the scheduler at ``address``, all of whose workers serve ``model``."""
    port = free_port()
    arguments = ("--address", address, "--port", str(port), "--workers", str(workers), "--grace-s", "2", *flags)
    async with child("gateway", "sage_gateway", *arguments) as process:
        for _ in range(workers):
            await process.wait_for(f"model {model} is served", START_TIMEOUT_S)
        yield GatewayProcesses(process, port)
