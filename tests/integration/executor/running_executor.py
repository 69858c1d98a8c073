"""An executor in this process, as ``python -m executor_svc`` builds it, on a simulated engine the test can reach."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from executor_svc.config import load
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import EngineFactory, ProgressListener
from executor_svc.runtime.service import ExecutorService
from executor_svc.runtime.session.timings import SessionTimings
from executor_svc.wiring import run

QUICK = SessionTimings(dial_timeout_s=5.0, leave_timeout_s=1.0, first_retry_s=0.01, most_retry_s=0.05)


class KeptFactory:
    """Starts simulated engines and keeps hold of the latest one."""

    def __init__(self, inner: SimulatedEngineFactory) -> None:
        self._inner = inner
        self.engine: SimulatedEngine | None = None

    async def start(self, progress: ProgressListener) -> SimulatedEngine:
        self.engine = await self._inner.start(progress)
        return self.engine


class RunningExecutor:
    def __init__(self, factory: EngineFactory) -> None:
        self._factory = factory
        self.service: ExecutorService | None = None
        self.task: asyncio.Task[int] | None = None
        self.begun = asyncio.Event()

    @property
    def engine(self) -> SimulatedEngine:
        assert isinstance(self._factory, KeptFactory)
        assert self._factory.engine is not None
        return self._factory.engine

    def terminate(self) -> None:
        assert self.service is not None
        self.service.stop(signal.SIGTERM)

    async def idle(self) -> None:
        """Waits until no attempt is with the engine."""
        assert self.service is not None
        async with asyncio.timeout(10):
            await self.service.attempts.none_running()

    async def status(self) -> int:
        """The exit status, once it is there."""
        assert self.task is not None
        async with asyncio.timeout(10):
            return await asyncio.shield(self.task)


@asynccontextmanager
async def executor(
    schedulers: str | Sequence[str], *flags: str, factory: EngineFactory | None = None
) -> AsyncIterator[RunningExecutor]:
    addresses = [schedulers] if isinstance(schedulers, str) else schedulers
    config = load(
        [
            *("--scheduler", ",".join(addresses), "--instance-id", "one", "--model", "sim"),
            *("--engine.kind", "simulated", "--engine.simulated.step-base-s", "0.002"),
            *("--drain-timeout-s", "5", *flags),
        ],
        environment={},
    )
    running = RunningExecutor(
        factory or KeptFactory(SimulatedEngineFactory(config.engine.model, config.engine.simulated))
    )

    def started(service: ExecutorService) -> None:
        running.service = service
        running.begun.set()

    running.task = asyncio.create_task(
        run(config, factory=running._factory, timings=QUICK, on_service=started), name="executor"
    )
    try:
        yield running
    finally:
        if not running.task.done() and running.service is not None:
            running.service.stop(signal.SIGTERM)
            running.service.stop(signal.SIGTERM)
        await asyncio.gather(running.task, return_exceptions=True)
