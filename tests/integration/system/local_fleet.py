"""The whole control plane in one process: the scheduler's own wiring, executors on simulated engines, real gRPC."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

import grpc

from executor_svc.config import ExecutorConfig
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import EngineFactory, ProgressListener
from executor_svc.runtime.service import ExecutorService
from executor_svc.runtime.session.timings import SessionTimings
from executor_svc.wiring import run
from sage_client import AsyncClient, Instance, InstanceState
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.support.eventually import eventually
from tests.support.simulated_answer import ENDLESS

MODEL = "sim"
QUICK = SessionTimings(dial_timeout_s=2.0, leave_timeout_s=0.5, first_retry_s=0.02, most_retry_s=0.1)
SCHEDULER = {"listen": "127.0.0.1:0", "policy": "fifo", "drain_timeout_s": 5.0}
INSTANCE = {"lease_s": 2.0, "heartbeat_interval_s": 0.1, "reconnect_grace_s": 0.3}


class _KeptEngine:
    """Implements EngineFactory; keeps hold of what it started, and may start an engine that answers otherwise.

    Such an engine says that its weights are others, or with ``pretends`` that they are the model's own.
    """

    def __init__(self, config: ExecutorConfig, answers_as: str | None, pretends: bool) -> None:
        model = config.engine.model if answers_as is None else ModelSettings(model=answers_as)
        embeds = config.role == "embedding"
        self._inner = SimulatedEngineFactory(model, config.engine.simulated, embeds=embeds)
        self._claims = f"simulated {config.engine.model.name}" if pretends else None
        self.engine: SimulatedEngine | None = None

    async def start(self, progress: ProgressListener) -> SimulatedEngine:
        self.engine = await self._inner.start(progress)
        if self._claims is not None:
            self.engine._facts = replace(self.engine.facts, weights=self._claims)
        return self.engine


class LocalExecutor:
    """One executor, as its own wiring builds it.  ``start`` after its end is a restart: same id, new engine."""

    def __init__(self, config: ExecutorConfig, answers_as: str | None, *, pretends: bool = False) -> None:
        self.instance_id = config.name
        self._config = config
        self._answers_as = answers_as
        self._pretends = pretends
        self._factory: _KeptEngine | None = None
        self._service: ExecutorService | None = None
        self._task: asyncio.Task[int] | None = None

    @property
    def engine(self) -> SimulatedEngine:
        assert self._factory is not None
        assert self._factory.engine is not None
        return self._factory.engine

    @property
    def held(self) -> list[object]:
        """The attempts that it holds, those included whose ends are not acknowledged yet."""
        assert self._service is not None
        return list(self._service.attempts._held)

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        assert not self.running
        self._factory = _KeptEngine(self._config, self._answers_as, self._pretends)
        factory: EngineFactory = self._factory
        work = run(self._config, factory=factory, timings=QUICK, on_service=self._started)
        self._task = asyncio.create_task(work, name=f"executor {self.instance_id}")

    def _started(self, service: ExecutorService) -> None:
        self._service = service

    def terminate(self) -> None:
        """What SIGTERM does."""
        assert self._service is not None
        self._service.stop(signal.SIGTERM)

    async def exit_status(self, within_s: float = 10.0) -> int:
        assert self._task is not None
        async with asyncio.timeout(within_s):
            return await asyncio.shield(self._task)

    async def end(self) -> None:
        """The quickest way out: the second signal does not drain."""
        if self.running:
            self.terminate()
            self.terminate()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.wait_for(self._task, 10)


class LocalFleet:
    def __init__(self, **settings: Any) -> None:
        options: dict[str, Any] = {**SCHEDULER, **settings, "instance": {**INSTANCE, **settings.get("instance", {})}}
        self.scheduler = SchedulerService(SchedulerConfig(**options))
        self.executors: dict[str, LocalExecutor] = {}
        self._clients: list[AsyncClient] = []
        self._channels: list[grpc.aio.Channel] = []
        self._stopping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.scheduler.start()
        self.client = self.new_client()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()
        for channel in self._channels:
            await channel.close()
        await asyncio.gather(*(executor.end() for executor in self.executors.values()))
        await self.stop_scheduler()

    async def stop_scheduler(self) -> None:
        """What SIGTERM does.  Once, however often it is asked for."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self.scheduler.stop(), name="scheduler-stop")
        await asyncio.shield(self._stopping)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.scheduler.port}"

    def new_client(self, **options: Any) -> AsyncClient:
        client = AsyncClient(options.pop("address", self.address), **options)
        self._clients.append(client)
        return client

    def channel(self) -> grpc.aio.Channel:
        """For calls that the SDK would not make."""
        channel = grpc.aio.insecure_channel(self.address, options=[("grpc.max_send_message_length", -1)])
        self._channels.append(channel)
        return channel

    def launch(
        self,
        instance_id: str,
        *,
        model: str = MODEL,
        through: str | None = None,
        answers_as: str | None = None,
        pretends: bool = False,
        settings: Mapping[str, Any] | None = None,
        **simulated: Any,
    ) -> LocalExecutor:
        """Start an executor without waiting for it.

        ``through``: another address of the scheduler (a proxy's).  ``answers_as``: the model that its engine really
        runs; ``pretends``: it says that it runs the fleet's.  ``settings``: of the executor; the others are the
        simulated engine's.
        """
        options = {"step_base_s": 0.001, "mean_output_tokens": ENDLESS.mean_output_tokens, **simulated}
        engine = EngineSettings(
            kind="simulated", model=ModelSettings(model=model), simulated=SimulatedSettings(**options)
        )
        address = (through or self.address,)
        config = ExecutorConfig(instance_id=instance_id, scheduler=address, engine=engine, **(settings or {}))
        executor = self.executors[instance_id] = LocalExecutor(config, answers_as, pretends=pretends)
        executor.start()
        return executor

    async def add(self, instance_id: str, **options: Any) -> LocalExecutor:
        """Start an executor and wait until it is READY, its tokenizer known."""
        executor = self.launch(instance_id, **options)
        await self.until(instance_id, InstanceState.READY)
        await eventually(self._tokenizers_known, what="the tokenizer")
        return executor

    def _tokenizers_known(self) -> bool:
        store = self.scheduler.control.intake._maker._prompts._tokenizers
        facts = [i.facts for i in self.scheduler.control.scheduler.instances() if i.facts is not None]
        return all(store.has(each.tokenizer_hash) for each in facts)

    async def instance(self, instance_id: str) -> Instance:
        return await self.client.get_instance(instance_id)

    async def until(self, instance_id: str, *states: InstanceState, within_s: float = 10.0) -> Instance:
        """Wait until an instance is in one of ``states``."""

        async def there() -> Instance | None:
            fleet = await self.client.list_instances()
            return next((i for i in fleet.instances if i.instance_id == instance_id and i.state in states), None)

        wanted = " or ".join(state.value for state in states)
        return await eventually(there, within_s=within_s, what=f"{instance_id} to be {wanted}")
