"""The engine that is vLLM.  The only file that imports it, and only when an engine is started.

Works with vLLM 0.26 through 0.32; what differs between them is handled where it shows, with a word about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import multiprocessing
import os
import threading
import time
import typing
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from executor_svc.engine.checks import Limits, refuse_invalid
from executor_svc.engine.handoff import opened, sealed
from executor_svc.engine.settings import ModelSettings, VllmSettings
from executor_svc.engine.structured import field_of
from executor_svc.engine.vllm.arguments import engine_arguments, refuse_unknown, set_environment
from executor_svc.engine.vllm.kv_connectors import connector_named
from executor_svc.engine.vllm.kv_connectors.connector import KvConnector, KvLayout, Pull, UnusableParams
from executor_svc.engine.vllm.lifeline import announce_executor
from executor_svc.engine.vllm.load import VllmLoad
from executor_svc.engine.vllm.models import ResolvedModel, resolve_model, weights_fingerprint
from executor_svc.engine.vllm.port_reservation import PortReservation
from executor_svc.engine.vllm.sampling import invalid_request, sampling_arguments, structured_arguments
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineLoad,
    EngineOutput,
    EngineRequest,
    EngineState,
    FinishReason,
    InvalidRequestError,
    Iteration,
    JsonValue,
    ModelError,
    ProgressListener,
    Sampling,
    StructuredKind,
    TokenizerFiles,
    TokenLogprob,
)

log = logging.getLogger(__name__)

WARM_UP_TOKENS = 8
NOTICE_STEP_S = 1.0  # for the engine to take the step in which its connector sends a notice
MEETING_PAUSES_S = (0.2, 0.4, 0.8, 1.6, 2.4)  # between steps while two engines may be meeting; it gives up after 5 s
PEERS_REMEMBERED = 1024  # beyond that all are forgotten: the next release to each takes a few seconds
STOP_GRACE_S = 10.0  # for the engine core to leave by itself before it is killed
_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "abort": FinishReason.ABORTED,
}


def _import_vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise EngineError(
            "vLLM is not installed: on a host with GPUs install 'vllm>=0.26', elsewhere the locked CPU build "
            f"('make setup-vllm'), or choose the simulated engine ({error})"
        ) from error
    return vllm


# --- starting -----------------------------------------------------------------------------------------------


class VllmEngineFactory:
    """Implements ``port.EngineFactory``."""

    def __init__(self, model: ModelSettings, settings: VllmSettings) -> None:
        self._model = model
        self._settings = settings

    async def start(self, progress: ProgressListener) -> VllmEngine:
        """Download, load and warm up, without holding the event loop.  Leaves no process behind when it
        fails.

        Raises ModelError, or EngineError: vLLM missing, an argument it does not know, no memory, too slow.
        """
        loop = asyncio.get_running_loop()
        connector = _connector(self._settings)
        if connector is not None:
            connector.refuse_missing()

        def report(state: EngineState, fraction: float | None, message: str) -> None:
            loop.call_soon_threadsafe(progress, state, fraction, message)

        resolved = await asyncio.to_thread(resolve_model, self._model, report)
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                return await self._load(resolved, report)
        except TimeoutError as error:
            raise EngineError(
                f"the engine was not up after {self._settings.start_timeout_s:.0f} s (vllm.start_timeout_s)"
            ) from error

    async def _load(self, resolved: ResolvedModel, report: ProgressListener) -> VllmEngine:
        report(EngineState.LOADING, None, f"loading {self._model.name}")
        load = VllmLoad()
        side_channel = _side_channel(self._settings)
        try:
            llm = await _Construction(
                lambda: _construct(self._model, self._settings, resolved, load, side_channel)
            ).result()
        except BaseException:
            _close(side_channel)
            raise
        try:
            if side_channel is not None and self._settings.cpu_cores is not None:
                await llm.collective_rpc("compute_on_own_cores")
            engine = VllmEngine(llm, load, self._model, self._settings, resolved, side_channel)
            report(EngineState.WARMING, None, f"warming up {self._model.name}")
            await engine.warm_up()
        except BaseException:
            await asyncio.shield(_end(llm))
            _close(side_channel)
            raise
        report(EngineState.READY, 1.0, f"{self._model.name} is ready")
        return engine


def _connector(settings: VllmSettings) -> KvConnector | None:
    name = settings.kv_transfer.connector
    return connector_named(name) if name else None


def _side_channel(settings: VllmSettings) -> PortReservation | None:
    """The port other engines meet this one at, kept from everybody else until vLLM listens on it."""
    transfer = settings.kv_transfer
    return PortReservation(transfer.side_channel_host, transfer.side_channel_port) if transfer.connector else None


def _close(side_channel: PortReservation | None) -> None:
    if side_channel is not None:
        side_channel.close()


class _Construction:
    """Makes an ``AsyncLLM`` in a thread of its own: the constructor blocks for as long as the model loads.

    When whoever waits is cancelled, the processes that were started meanwhile are killed, which ends the
    constructor.
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
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits, and the process is ending
            self._loop.call_soon_threadsafe(self._settle, llm, error)

    def _settle(self, llm: Any, error: Exception | None) -> None:
        if error is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(llm)

    async def result(self) -> Any:
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
            await _end(self._done.result())


def _construct(
    model: ModelSettings,
    settings: VllmSettings,
    resolved: ResolvedModel,
    load: VllmLoad,
    side_channel: PortReservation | None,
) -> Any:
    set_environment(settings, os.environ, None if side_channel is None else side_channel.port)
    announce_executor()
    vllm = _import_vllm()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    refuse_unknown(settings, (field.name for field in dataclasses.fields(AsyncEngineArgs)), vllm.__version__)
    arguments = engine_arguments(model, settings, resolved.path)
    connector = _connector(settings)
    if connector is not None:
        from vllm.platforms import current_platform

        arguments["kv_transfer_config"] = connector.config(settings.kv_transfer, current_platform.device_type)
        load.count_transfers = connector.counts
    try:
        engine_args = AsyncEngineArgs(**_with_configs(AsyncEngineArgs, arguments))
        return AsyncLLM.from_engine_args(engine_args, stat_loggers=[_stat_logger_for(load)])
    except Exception as error:
        raise EngineError(f"vLLM could not start: {_sentence(error)}") from error


def _with_configs(engine_args_class: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Turn mappings into the config classes their arguments are declared with, as vLLM's own CLI does."""
    declared = {field.name: field.type for field in dataclasses.fields(engine_args_class)}
    converted = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, dict):
            for candidate in typing.get_args(declared[name]) or (declared[name],):
                if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
                    converted[name] = candidate(**value)
                    break
    return converted


def _sentence(error: BaseException) -> str:
    """What a start failed of, on one line.  Pydantic puts it in the second."""
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and "validation error" in lines[0]:
        return lines[1].strip().partition(" [type=")[0]
    if "Engine core initialization failed" in str(error):
        return "its engine core gave up; what it logged just before says why"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _stat_logger_for(load: VllmLoad) -> Callable[..., Any]:
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


async def _end(llm: Any) -> None:
    """Stop the engine core and what it started, by force after STOP_GRACE_S.  Returns when they are gone."""
    await asyncio.to_thread(llm.shutdown, STOP_GRACE_S)
    llm.shutdown = lambda timeout=None: None  # its finalizer calls it again, when the interpreter is half gone


# --- serving ------------------------------------------------------------------------------------------------


class VllmEngine:
    """Implements ``port.Engine``.  Made by ``VllmEngineFactory``."""

    def __init__(
        self,
        llm: Any,
        load: VllmLoad,
        model: ModelSettings,
        settings: VllmSettings,
        resolved: ResolvedModel,
        side_channel: PortReservation | None = None,
    ) -> None:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine import exceptions

        self._llm = llm
        self._load = load
        self._tracing = settings.traces_endpoint is not None
        self._sampling_params = SamplingParams
        self._structured_params = StructuredOutputsParams
        self._delta = RequestOutputKind.DELTA
        self._vllm_dead_error = exceptions.EngineDeadError
        self._wrapper_error = exceptions.EngineGenerateError
        self._client_errors = _client_errors()
        self._param_errors: tuple[type[Exception], ...] = (ValueError, TypeError, *self._client_errors)
        self._adapters = {
            name: LoRARequest(lora_name=name, lora_int_id=number, lora_path=path)
            for number, (name, path) in enumerate(settings.adapters.items(), start=1)
        }
        self._connector = _connector(settings)
        self._side_channel = side_channel
        self._releases = itertools.count(1)
        self._releasing = 0
        self._peers: dict[str, bool] = {}  # engines that KV was to be fetched from: whether the last pull worked
        self._pulling: set[str] = set()  # engine request ids that wait for KV
        self._pulls_failed: set[str] = set()  # of those: that compute their prompt now
        load.on_failed_pulls = self._note_failed_pulls
        self._gpus = _Gpus(llm.vllm_config)
        self._facts = _facts(llm, model, settings, resolved, self._gpus)
        load.kv_capacity_tokens = self._facts.kv_capacity_tokens
        self._limits = _limits(llm.vllm_config, self._facts)
        self._active: dict[str, EngineRequest] = {}  # handed to the engine and not ended
        self._prompt_tokens = 0
        self._stopped = False

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    async def warm_up(self) -> None:
        """Have the engine produce tokens, for the model itself and with each adapter.

        Raises EngineError, or ModelError for an adapter that does not load.
        """
        for name, adapter in self._adapters.items():
            try:
                await self._llm.add_lora(adapter)
            except Exception as error:
                raise ModelError(f"adapter {name!r} does not load: {_first_line(error)}") from error
        for adapter in (None, *self._adapters):
            request = EngineRequest(
                engine_request_id=f"warm-up/{adapter or 'model'}",
                prompt_token_ids=[token % self._facts.vocab_size for token in range(16)],
                sampling=Sampling(temperature=0.0, max_tokens=WARM_UP_TOKENS, ignore_eos=True),
                adapter=adapter,
            )
            tokens = 0
            async for output in self.generate(request):
                tokens += len(output.token_ids)
            if tokens != WARM_UP_TOKENS:
                raise EngineError(f"the warm-up request got {tokens} of {WARM_UP_TOKENS} tokens")

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        if self._stopped:
            raise EngineDeadError("the engine was shut down")
        refuse_invalid(request, self._limits)
        if request.engine_request_id in self._active:
            raise EngineError(f"engine request id {request.engine_request_id!r} is in use")
        pull = self._pull_of(request)
        params = self._params_of(request, pull)
        self._active[request.engine_request_id] = request
        if pull is not None:
            self._pulling.add(request.engine_request_id)
        stream = self._stream_of(request, params)
        started = False
        try:
            async for result in stream:
                output = _output_of(result)
                if not started:
                    started = True
                    self._begin(output, result, request, pull)
                if result.finished:
                    _finish(output, result, request)
                yield output
        except (EngineError, InvalidRequestError):
            raise
        except Exception as error:
            raise self._translated(error, request.sampling, started) from error
        finally:
            del self._active[request.engine_request_id]
            self._pulling.discard(request.engine_request_id)
            self._pulls_failed.discard(request.engine_request_id)
            await stream.aclose()  # aborts in the engine what has not ended

    async def stop(self, engine_request_id: str) -> None:
        """vLLM forgets a request that it is told to abort, and with it what one that was just over had to say.  So the
        engine core is told first; when it has answered something else, all that it said before is here.
        """
        if self._stopped:
            raise EngineDeadError("the engine was shut down")
        core, known = self._llm.engine_core, self._llm.output_processor.external_req_ids
        try:
            await core.abort_requests_async(list(known.get(engine_request_id, ())))
            await core.get_supported_tasks_async()
            await self._llm.abort(engine_request_id)
        except Exception as error:
            raise self._translated(error, Sampling(), started=True) from error

    def _pull_of(self, request: EngineRequest) -> Pull | None:
        """Raises EngineError for a handoff that vLLM would choke on, or that is another prompt's."""
        if self._connector is None or request.kv_transfer_params is None:
            return None
        prompt = request.prompt_token_ids
        params = opened(request.kv_transfer_params, prompt, request.adapter)
        try:
            return self._connector.pull(params, len(prompt), self._facts.kv_block_size)
        except UnusableParams as error:
            raise EngineError(f"the handoff {error}") from error

    def _params_of(self, request: EngineRequest, pull: Pull | None) -> Any:
        """vLLM's SamplingParams.  Raises InvalidRequestError."""
        transfer = None if pull is None else pull.params
        if self._connector is not None and request.prefill_only:
            transfer = self._connector.prefill_params()
        arguments = sampling_arguments(request.sampling, transfer)
        constraint = request.sampling.structured_output
        try:
            if constraint is not None:
                arguments["structured_outputs"] = self._structured_params(**structured_arguments(constraint))
            return self._sampling_params(output_kind=self._delta, **arguments)
        except self._param_errors as error:
            raise invalid_request(error, request.sampling) from error

    def _stream_of(self, request: EngineRequest, params: Any) -> AsyncGenerator[Any, None]:
        prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt_token_ids)}
        if request.sampling.structured_output is None:
            # Nothing to preprocess: straight in.  vLLM checks constraints on a thread for prompts without a
            # type (0.32).
            prompt["type"] = "token"
        stream: AsyncGenerator[Any, None] = self._llm.generate(
            prompt,
            params,
            request.engine_request_id,
            lora_request=None if request.adapter is None else self._adapters[request.adapter],
            trace_headers=request.trace_headers if self._tracing else None,
            priority=request.priority,
        )
        return stream

    def _begin(self, output: EngineOutput, result: Any, request: EngineRequest, pull: Pull | None) -> None:
        """What comes with a request's first output."""
        self._prompt_tokens += len(request.prompt_token_ids)
        output.cached_prompt_tokens = result.num_cached_tokens
        if pull is not None:
            self._pulling.discard(request.engine_request_id)
            # What was fetched counts as cached with vLLM; so does what was to be, after a beginning cached here.
            cut_short = result.num_cached_tokens < pull.tokens
            output.kv_pull_failed = cut_short or request.engine_request_id in self._pulls_failed
            self._note_peer(pull.peer, not output.kv_pull_failed)
            if not output.kv_pull_failed:
                output.cached_prompt_tokens = pull.cached_tokens or 0
        if result.prompt_logprobs is not None:
            output.prompt_logprobs = [None if row is None else _logprobs(row) for row in result.prompt_logprobs]

    def _translated(self, error: Exception, sampling: Sampling, started: bool) -> Exception:
        """Our error for one of vLLM's.  What was wrong with the request shows before its first output."""
        if isinstance(error, self._vllm_dead_error):
            return EngineDeadError(_first_line(error))
        if isinstance(error, self._wrapper_error) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if isinstance(error, self._client_errors) or (isinstance(error, ValueError) and not started):
            return invalid_request(error, sampling)
        return EngineError(f"{type(error).__name__}: {_first_line(error)}")

    # --- KV for and from other engines ----------------------------------------------------------------------

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        """vLLM is given the request that would have fetched it, aborted from the start: its connector tells the other
        side, after meeting it if it never has.  Of a peer whose last pull failed vLLM may drop the notice in silence.
        """
        if self._stopped:
            raise EngineDeadError("the engine was shut down")
        if self._connector is None:
            raise EngineError("this engine has no KV connector")
        params = opened(kv_transfer_params, None)
        try:
            self._connector.check(params)
        except UnusableParams as error:
            raise EngineError(f"the handoff {error}") from error
        load, peer = self._load, self._connector.peer(params)
        failed_before = load.kv_pulls_failed + load.kv_notices_failed
        name = f"release/{next(self._releases)}"
        self._releasing += 1
        try:
            await self._llm.notify_kv_transfer_request_rejected(name, params)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NOTICE_STEP_S):
                    await load.step_over()
            if peer not in self._peers:
                await self._keep_stepping(name)
        except EngineError:
            raise
        except Exception as error:
            raise self._translated(error, Sampling(), started=True) from error
        finally:
            self._releasing -= 1
        reached = load.kv_pulls_failed + load.kv_notices_failed == failed_before
        if reached and peer not in self._peers:
            self._note_peer(peer, True)
        return reached and self._peers[peer]

    def _note_failed_pulls(self, count: int) -> None:
        """vLLM does not say whose pulls failed: known when it was all there were."""
        if count >= len(self._pulling) + self._releasing:
            self._pulls_failed |= self._pulling
        else:
            log.warning("%d of %d KV pulls failed; their prompts are computed here", count, len(self._pulling))

    def _note_peer(self, peer: str, worked: bool) -> None:
        if len(self._peers) >= PEERS_REMEMBERED:
            self._peers.clear()
        self._peers[peer] = worked

    async def _keep_stepping(self, name: str) -> None:
        """Two engines meet between steps, and what waits for that is sent with the next step: an idle engine takes none
        by itself.
        """
        for number, pause_s in enumerate(MEETING_PAUSES_S):
            await asyncio.sleep(pause_s)
            sampling = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
            step = EngineRequest(engine_request_id=f"{name}/{number}", prompt_token_ids=[0], sampling=sampling)
            async for _ in self.generate(step):
                pass

    # --- watching and stopping ------------------------------------------------------------------------------

    def load(self) -> EngineLoad:
        load = self._load
        return EngineLoad(
            running=load.running,
            waiting=load.waiting,
            unfinished=len(self._active),
            kv_used_tokens=load.kv_used_tokens,
            prefix_queries_tokens=load.prefix_queries_tokens,
            prefix_hits_tokens=load.prefix_hits_tokens,
            prompt_tokens_total=self._prompt_tokens,
            generation_tokens_total=load.generation_tokens,
            iterations=load.iterations,
            known_wait=self._known_wait(),
            gpu_memory_used_bytes=self._gpus.used_bytes(),
            kv_pulls=load.kv_pulls,
            kv_pulls_failed=load.kv_pulls_failed,
            kv_leases_expired=load.kv_leases_expired,
        )

    def _known_wait(self) -> str | None:
        """Why nothing runs though something waits, when it is not for room."""
        if self._load.running or not self._load.blocked:
            return None
        requests = self._active.values()
        if any(request.kv_transfer_params is not None for request in requests):
            return "a KV transfer"
        if any(request.sampling.structured_output is not None for request in requests):
            return "a grammar being compiled"
        return None

    def take_iterations(self) -> Sequence[Iteration]:
        return self._load.take_iterations()

    def on_step(self, callback: Callable[[], None]) -> None:
        self._load.on_step(callback)

    async def check_health(self) -> None:
        if self._stopped or self._llm.errored:
            raise EngineDeadError("the engine was shut down" if self._stopped else "the engine core is gone")

    async def shutdown(self) -> None:
        self._stopped = True
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if llm.output_handler is not None:
            llm.output_handler.cancel()  # or it would report the end of the engine core as a failure
        llm.output_processor.propagate_error(self._vllm_dead_error())
        await _end(llm)
        _close(self._side_channel)


# --- outputs ------------------------------------------------------------------------------------------------


def _output_of(result: Any) -> EngineOutput:
    completion = result.outputs[0]
    output = EngineOutput(token_ids=completion.token_ids)
    if completion.logprobs is not None:
        output.logprobs = [_logprobs(row) for row in completion.logprobs]
    return output


def _logprobs(row: Any) -> list[TokenLogprob]:
    """One token's logprobs; vLLM puts the chosen token first."""
    return [TokenLogprob(token_id=token_id, logprob=entry.logprob, rank=entry.rank) for token_id, entry in row.items()]


def _finish(output: EngineOutput, result: Any, request: EngineRequest) -> None:
    """What comes with a request's last output.  Raises what it ended in, if that was an error."""
    sampling = request.sampling
    completion = result.outputs[0]
    reason = _FINISH_REASONS.get(completion.finish_reason)
    if reason is None:
        if sampling.structured_output is not None and not output.token_ids:
            field_name = field_of(sampling.structured_output.kind)
            raise InvalidRequestError(field_name, "the engine could not compile this constraint")
        raise EngineError(f"the engine ended the request with {completion.finish_reason!r}")
    output.finish_reason = reason
    if request.prefill_only and result.kv_transfer_params:
        output.kv_transfer_params = sealed(result.kv_transfer_params, request.prompt_token_ids, request.adapter)
        # The lease runs in the engine core, whose clock is this machine's monotonic one.
        output.kv_kept_s = max(0.0, time.monotonic() - result.metrics.last_token_ts)
    if reason is FinishReason.STOP and output.token_ids:
        stop = completion.stop_reason  # None for the model's own end-of-sequence token
        output.stop_token_id = stop if isinstance(stop, int) else output.token_ids[-1]


# --- facts --------------------------------------------------------------------------------------------------


def _client_errors() -> tuple[type[Exception], ...]:
    """What vLLM raises for a caller's fault: classes of one base in 0.32, unrelated ones in 0.26."""
    from vllm import exceptions

    names = ("VLLMClientError", "VLLMValidationError", "VLLMNotFoundError")
    return tuple(getattr(exceptions, name) for name in names if hasattr(exceptions, name))


def _limits(config: Any, facts: EngineFacts) -> Limits:
    top = config.model_config.max_logprobs
    return Limits(
        vocab_size=facts.vocab_size,
        max_model_len=facts.max_model_len,
        max_logprobs=facts.vocab_size if top == -1 else top,
        adapters=frozenset(facts.adapters),
        kv_connector=facts.kv_connector is not None,
    )


def _facts(llm: Any, model: ModelSettings, settings: VllmSettings, resolved: ResolvedModel, gpus: _Gpus) -> EngineFacts:
    import vllm

    config = llm.vllm_config
    cache, parallel, scheduler = config.cache_config, config.parallel_config, config.scheduler_config
    return EngineFacts(
        engine="vllm",
        engine_version=vllm.__version__,
        model=model.name,
        revision=resolved.revision,
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        vocab_size=config.model_config.get_vocab_size(),
        max_model_len=config.model_config.max_model_len,
        kv_capacity_tokens=cache.kv_cache_size_tokens or cache.num_gpu_blocks * cache.block_size,
        kv_block_size=cache.block_size,
        max_running=scheduler.max_num_seqs,
        max_batched_tokens=scheduler.max_num_batched_tokens,
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        data_parallel_size=parallel.data_parallel_size,
        gpu_count=gpus.count,
        gpu_name=gpus.name,
        gpu_memory_bytes=gpus.total_bytes,
        adapters=tuple(settings.adapters),
        supports_priority=scheduler.policy == "priority",
        structured_output_kinds=frozenset(StructuredKind),
        kv_connector=settings.kv_transfer.connector or None,
        tokenizer=_tokenizer_files(llm.get_tokenizer(), resolved),
        eos_token_ids=_end_ids(config.model_config, llm.get_tokenizer()),
        compatibility_key=_compatibility_key(config, settings, resolved),
        kv_lease_s=settings.kv_transfer.lease_s if settings.kv_transfer.connector else None,
    )


def _compatibility_key(config: Any, settings: VllmSettings, resolved: ResolvedModel) -> str:
    import vllm

    connector = _connector(settings)
    if connector is None:
        return ""
    model, parallel = config.model_config, config.parallel_config
    layout = KvLayout(
        engine_version=vllm.__version__,
        model=resolved.path,
        weights=weights_fingerprint(resolved.path),
        dtype=str(model.dtype),
        cache_dtype=str(config.cache_config.cache_dtype),
        block_size=config.cache_config.block_size,
        kv_heads=model.get_total_num_kv_heads(),
        head_size=model.get_head_size(),
        layers=model.get_total_num_hidden_layers(),
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_size=parallel.pipeline_parallel_size,
    )
    return connector.compatibility_key(layout, settings.kv_transfer)


def _end_ids(model_config: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens vLLM ends a generation at: the tokenizer's own and those of the model's generation config."""
    configured = model_config.try_get_generation_config().get("eos_token_id")
    ids = [configured] if isinstance(configured, int) else list(configured or ())
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return frozenset(ids)


def _tokenizer_files(tokenizer: Any, resolved: ResolvedModel) -> TokenizerFiles:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"the tokenizer of {resolved.path} has no form the `tokenizers` library reads; name one that has "
            "(model.tokenizer)"
        )
    template = resolved.chat_template or tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return TokenizerFiles(
        tokenizer_json=backend.to_str(),
        chat_template=template,
        special_tokens={name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    )


class _Gpus:
    """The engine's NVIDIA GPUs, read through NVML: no CUDA context in this process.  Of other platforms, the
    count.
    """

    def __init__(self, config: Any) -> None:
        from vllm.platforms import current_platform

        self.count = 0 if current_platform.is_cpu() else config.parallel_config.world_size
        self.name: str | None = None
        self.total_bytes: int | None = None
        self._handles: list[Any] = []
        if self.count:
            self.name = current_platform.get_device_name(0)
        if current_platform.is_cuda():
            self._open(current_platform)

    def _open(self, platform: Any) -> None:
        from vllm.utils.import_utils import import_pynvml

        self._nvml = import_pynvml()
        self._nvml.nvmlInit()
        ids = [platform.device_id_to_physical_device_id(device) for device in range(self.count)]
        self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(device) for device in ids]
        self.total_bytes = sum(self._nvml.nvmlDeviceGetMemoryInfo(handle).total for handle in self._handles)

    def used_bytes(self) -> int | None:
        """Bytes in use on the engine's GPUs, whoever uses them; None where that cannot be read."""
        if not self._handles:
            return None
        return int(sum(self._nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles))
