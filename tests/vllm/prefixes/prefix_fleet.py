"""Two vLLM engines whose scheduler is started again, with or without prefix-awareness."""

from __future__ import annotations

from pathlib import Path

from sage_client import AsyncClient
from tests.support.fleet_processes import FleetProcesses
from tests.support.service_process import ServiceProcess

MAX_MODEL_LEN = 4_096
KV_CACHE_BYTES = 128 << 20
MODEL_NAME = "tiny"
NAMES = ("one", "two")
UP_WITHIN_S = 240.0  # seconds an engine may take to start


class PrefixFleet:
    """The executors stay and keep what their engines cached; ``restart_scheduler`` changes how requests are placed."""

    def __init__(self, logs: Path, model: Path) -> None:
        self._logs = logs
        self._model = model
        self._processes = FleetProcesses(logs)
        self._schedulers = 1

    async def start(self) -> None:
        """Start the scheduler and both executors, a core each."""
        await self._processes.start()
        for core, name in enumerate(NAMES):
            self._processes.launch(name, self._flags(core))
        await self._processes.ready(*NAMES, within_s=UP_WITHIN_S)

    def _flags(self, core: int) -> list[str]:
        return [
            *("--model", str(self._model), "--engine.model.served-name", MODEL_NAME),
            *("--engine.vllm.dtype", "float32", "--engine.vllm.enforce-eager"),
            *("--engine.vllm.cpu-cores", str(core)),
            *("--engine.vllm.max-running", "16"),
            *("--engine.vllm.max-model-len", str(MAX_MODEL_LEN)),
            *("--engine.vllm.kv-cache-bytes", str(KV_CACHE_BYTES)),
        ]

    async def restart_scheduler(self, *flags: str) -> None:
        """Start another scheduler where the old one was; the executors dial it."""
        fleet = self._processes
        fleet.scheduler.terminate()
        await fleet.scheduler.ended(within_s=30.0)
        fleet.scheduler.reap()
        self._schedulers += 1
        fleet.scheduler = ServiceProcess(
            f"scheduler-{self._schedulers}",
            "scheduler_svc",
            ("--listen", f"127.0.0.1:{fleet.port}", *flags),
            self._logs / f"scheduler-{self._schedulers}.log",
            family=fleet.family,
        )
        fleet.scheduler.start()
        await fleet.scheduler.said(r"serving on")
        await fleet.ready(*NAMES)

    def client(self) -> AsyncClient:
        """Return a client of the scheduler that runs now."""
        return self._processes.client()

    async def leave(self) -> None:
        """End every process."""
        await self._processes.leave()
