"""Makes and ends vLLM's AsyncLLM, the object that ``serving`` sends requests to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing
import os
import threading
import typing
from collections.abc import Callable, Mapping
from typing import Any

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.arguments import engine_arguments, refuse_unknown, set_environment
from executor_svc.engine.vllm.errors import start_failure
from executor_svc.engine.vllm.kv_connectors import configured_connector
from executor_svc.engine.vllm.lifeline import announce_executor
from executor_svc.engine.vllm.load import VllmLoad
from executor_svc.engine.vllm.models import ResolvedModel
from executor_svc.engine.vllm.ray_group import in_group
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import EngineError

STOP_GRACE_S = 10.0  # for the engine core to exit by itself before it is killed


def make_llm(
    model: ModelSettings,
    settings: VllmSettings,
    resolved: ResolvedModel,
    load: VllmLoad,
    side_channel_port: int | None,
    kv_events_config: Mapping[str, Any] | None = None,
    *,
    embeds: bool = False,
) -> Any:
    """Make an AsyncLLM that reports its statistics to ``load``.  Blocks while the model loads.

    ``kv_events_config``: vLLM's, of where to tell what its prefix cache holds; None if it need not.  ``embeds``: it
    makes vectors instead of generating.

    Raises EngineError if vLLM is not installed, does not know an argument or has too little memory.
    """
    set_environment(settings, os.environ, side_channel_port)
    announce_executor()
    vllm = _import_vllm()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    refuse_unknown(settings, (field.name for field in dataclasses.fields(AsyncEngineArgs)), vllm.__version__)
    arguments = engine_arguments(model, settings, resolved.path, embeds=embeds)
    if kv_events_config is not None:
        arguments["kv_events_config"] = dict(kv_events_config)
    connector = configured_connector(settings.kv_transfer)
    if connector is not None:
        from vllm.platforms import current_platform

        arguments["kv_transfer_config"] = connector.config(settings.kv_transfer, current_platform.device_type)
        load.count_transfers = connector.counts
    try:
        engine_args = AsyncEngineArgs(**_with_configs(AsyncEngineArgs, arguments))
        if settings.ray_placement_group is not None:
            engine_args = in_group(engine_args, settings.ray_placement_group)
        llm = AsyncLLM.from_engine_args(engine_args, stat_loggers=[_stat_logger_for(load)])
    except Exception as error:
        raise EngineError(f"vLLM could not start: {start_failure(error)}") from error
    time_steps(llm.engine_core, load)
    if llm.vllm_config.scheduler_config.async_scheduling:
        load.steps_overlap()
    return llm


def _import_vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise EngineError(
            "vLLM is not installed: on a host with GPUs install 'vllm>=0.26', elsewhere the locked CPU build "
            f"('make setup-vllm'), or choose the simulated engine ({error})"
        ) from error
    return vllm


def _with_configs(engine_args_class: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert dict arguments to the config classes that vLLM declares for them, as vLLM's own CLI does."""
    declared = {field.name: field.type for field in dataclasses.fields(engine_args_class)}
    converted = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, dict):
            for candidate in typing.get_args(declared[name]) or (declared[name],):
                if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
                    converted[name] = candidate(**value)
                    break
    return converted


def time_steps(engine_core: Any, load: VllmLoad) -> None:
    """Tell ``load`` when each step ended by the engine core's clock.

    The event loop takes a step's outputs later, where it is busy those of several steps at once: by its own clock
    one step would take all the time and the others none.
    """
    take = engine_core.get_output_async

    async def take_timed() -> Any:
        outputs = await take()
        load.step_ended_at = outputs.timestamp or None
        return outputs

    engine_core.get_output_async = take_timed


def _stat_logger_for(load: VllmLoad) -> Callable[..., Any]:
    """Make the class through which vLLM reports its statistics to ``load``."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class LoadLogger(StatLoggerBase):
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            load.record(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    return LoadLogger


class LlmConstruction:
    """Makes an AsyncLLM in a thread of its own, because the constructor blocks.

    If the task that waits for ``result`` is cancelled, the processes that the constructor started are killed, and that
    ends it.
    """

    def __init__(self, construct: Callable[[], Any]) -> None:
        self._before = {process.pid for process in multiprocessing.active_children()}
        self._construct = construct
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Any] = self._loop.create_future()
        threading.Thread(target=self._run, name="vllm-start", daemon=True).start()

    def _run(self) -> None:
        llm, error = None, None
        try:
            llm = self._construct()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed because the process ends: no task waits
            self._loop.call_soon_threadsafe(self._settle, llm, error)

    def _settle(self, llm: Any, error: Exception | None) -> None:
        if error is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(llm)

    async def result(self) -> Any:
        """Wait for the AsyncLLM.  Raises what the constructor raised."""
        try:
            return await asyncio.shield(self._done)
        except asyncio.CancelledError:
            await asyncio.shield(self._abandon())
            raise

    async def _abandon(self) -> None:
        while not self._done.done():
            for process in multiprocessing.active_children():
                if process.pid not in self._before:
                    process.kill()
            await asyncio.wait([self._done], timeout=0.2)
        if self._done.exception() is None:
            await end_llm(self._done.result())


def end_outputs(llm: Any, error: Exception) -> None:
    """Give no outputs any more: requests that run in streams end with ``error``."""
    if llm.output_handler is not None:
        llm.output_handler.cancel()  # else it would report the end of the engine core as a failure
    llm.output_processor.propagate_error(error)


async def end_llm(llm: Any) -> None:
    """End the engine core and its processes, by force after STOP_GRACE_S.  Returns when they have ended."""
    await asyncio.to_thread(llm.shutdown, STOP_GRACE_S)
    llm.shutdown = lambda timeout=None: None  # AsyncLLM's finalizer would call it again while the interpreter exits
