"""Starts a vLLM engine: finds the model, loads it, warms it up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from executor_svc.engine.common_settings import KvTransferSettings, ModelSettings
from executor_svc.engine.vllm.async_llm import LlmConstruction, end_llm, make_llm
from executor_svc.engine.vllm.cache_event_channel import CacheEventChannel
from executor_svc.engine.vllm.constraints.xgrammar_gate import trial_process, tries_at_start
from executor_svc.engine.vllm.embedding import VllmEmbeddingEngine, task_of
from executor_svc.engine.vllm.kv_connectors import configured_connector
from executor_svc.engine.vllm.load import VllmLoad
from executor_svc.engine.vllm.models import ResolvedModel, resolve_model
from executor_svc.engine.vllm.port_reservation import PortReservation
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import EngineError, EngineState, ProgressListener

E = TypeVar("E", VllmEngine, VllmEmbeddingEngine)


class VllmEngineFactory:
    """Starts a vLLM engine from settings.  Implements ``runtime.engine_port.EngineFactory``."""

    def __init__(self, model: ModelSettings, settings: VllmSettings, *, measure_speed_s: float = 0.0) -> None:
        """``measure_speed_s``: most seconds in which the engine's speed is measured; 0: it is not."""
        self._model = model
        self._settings = settings
        self._measure_speed_s = measure_speed_s

    async def start(self, progress: ProgressListener) -> VllmEngine:
        """Download, load and warm up, without blocking the event loop.  Leaves no process behind if it fails.

        Raises ModelError; or EngineError if vLLM is not installed, does not know an argument, has too little memory or
        takes longer than ``start_timeout_s``.
        """
        connector = configured_connector(self._settings.kv_transfer)
        if connector is not None:
            connector.refuse_missing()
        return await started(self._model, self._settings, progress, self._load, measure_speed_s=self._measure_speed_s)

    async def _load(self, resolved: ResolvedModel, report: ProgressListener) -> VllmEngine:
        side_channel = _reserve_side_channel(self._settings.kv_transfer)
        try:
            return await self._construct(resolved, side_channel, report)
        except BaseException:
            if side_channel is not None:
                side_channel.close()
            raise

    async def _construct(
        self, resolved: ResolvedModel, side_channel: PortReservation | None, report: ProgressListener
    ) -> VllmEngine:
        model, settings, load = self._model, self._settings, VllmLoad()
        port = None if side_channel is None else side_channel.port
        llm: Any = None
        async with AsyncExitStack() as undo:
            cache_events = CacheEventChannel.opened(settings)
            events_config = None if cache_events is None else cache_events.config
            if cache_events is not None:
                undo.callback(cache_events.close)
            trials = trial_process(lambda: llm)
            undo.push_async_callback(trials.close)
            if tries_at_start(settings):
                await trials.launch()
            llm = await LlmConstruction(lambda: make_llm(model, settings, resolved, load, port, events_config)).result()
            undo.push_async_callback(lambda: asyncio.shield(end_llm(llm)))
            if side_channel is not None and settings.cpu_cores is not None:
                await llm.collective_rpc("compute_on_own_cores")
            engine = VllmEngine(llm, load, model, settings, resolved, side_channel, cache_events, trials)
            report(EngineState.WARMING, None, f"warming up {model.name}")
            await engine.warm_up()
            await _measure_speed(engine, self._measure_speed_s, report)
            undo.pop_all()
        return engine


class VllmEmbeddingFactory:
    """Starts a vLLM engine that embeds.  Implements ``runtime.engine_port.EngineFactory``."""

    def __init__(self, model: ModelSettings, settings: VllmSettings, *, measure_speed_s: float = 0.0) -> None:
        """``measure_speed_s``: most seconds in which the engine's speed is measured; 0: it is not."""
        self._model = model
        self._settings = settings
        self._measure_speed_s = measure_speed_s

    async def start(self, progress: ProgressListener) -> VllmEmbeddingEngine:
        """Start as ``VllmEngineFactory.start`` does, and raise what it raises."""
        return await started(self._model, self._settings, progress, self._load, measure_speed_s=self._measure_speed_s)

    async def _load(self, resolved: ResolvedModel, report: ProgressListener) -> VllmEmbeddingEngine:
        model, settings, load = self._model, self._settings, VllmLoad()
        llm = await LlmConstruction(lambda: make_llm(model, settings, resolved, load, None, embeds=True)).result()
        try:
            task = await task_of(llm, model.name)
            engine = VllmEmbeddingEngine(llm, load, model, settings, resolved, task)
            report(EngineState.WARMING, None, f"warming up {model.name}")
            await engine.warm_up()
            await _measure_speed(engine, self._measure_speed_s, report)
        except BaseException:
            await asyncio.shield(end_llm(llm))
            raise
        return engine


async def started(
    model: ModelSettings,
    settings: VllmSettings,
    progress: ProgressListener,
    load: Callable[[ResolvedModel, ProgressListener], Awaitable[E]],
    *,
    measure_speed_s: float = 0.0,
) -> E:
    """Return the engine that ``load`` makes of the model's files, within ``start_timeout_s``.

    ``measure_speed_s``: what ``load`` may take beyond that to measure the engine's speed.
    ``progress`` may be reported from any thread.  Raises ModelError, EngineError.
    """
    loop = asyncio.get_running_loop()

    def report(state: EngineState, fraction: float | None, message: str) -> None:
        loop.call_soon_threadsafe(progress, state, fraction, message)

    resolved = await asyncio.to_thread(resolve_model, model, report)
    try:
        async with asyncio.timeout(settings.start_timeout_s + measure_speed_s):
            report(EngineState.LOADING, None, f"loading {model.name}")
            engine = await load(resolved, report)
            report(EngineState.READY, 1.0, f"{model.name} is ready")
            return engine
    except TimeoutError as error:
        raise EngineError(
            f"the engine was not up after {settings.start_timeout_s:.0f} s (vllm.start_timeout_s)"
        ) from error


async def _measure_speed(engine: E, limit_s: float, report: ProgressListener) -> None:
    if limit_s > 0:
        report(EngineState.WARMING, None, f"measuring the speed of {engine.facts.model}")
    await engine.measure_speed(limit_s)


def _reserve_side_channel(transfer: KvTransferSettings) -> PortReservation | None:
    """Reserve the port that vLLM will listen on for other engines to fetch KV.  Return None without a connector."""
    return PortReservation(transfer.side_channel_host, transfer.side_channel_port) if transfer.connector else None
