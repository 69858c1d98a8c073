"""Serves requests on a started vLLM engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from executor_svc.engine.checks import refuse_invalid
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.handoff_seal import opened
from executor_svc.engine.vllm.adapters import EngineAdapters
from executor_svc.engine.vllm.async_llm import end_llm, end_outputs
from executor_svc.engine.vllm.cache_event_channel import CacheEventChannel
from executor_svc.engine.vllm.constraints.gate import Turn
from executor_svc.engine.vllm.constraints.trial_process import TrialProcess
from executor_svc.engine.vllm.constraints.xgrammar_gate import gate_for, trial_process
from executor_svc.engine.vllm.errors import VllmErrors, first_line
from executor_svc.engine.vllm.facts import engine_facts, request_limits
from executor_svc.engine.vllm.gpus import Gpus
from executor_svc.engine.vllm.kv_connectors import configured_connector
from executor_svc.engine.vllm.kv_connectors.connector import Pull, UnusableParams
from executor_svc.engine.vllm.kv_release import KvRelease
from executor_svc.engine.vllm.load import VllmLoad
from executor_svc.engine.vllm.measuring import measured_facts
from executor_svc.engine.vllm.media_input import forget_media, prompt_with_media
from executor_svc.engine.vllm.models import ResolvedModel
from executor_svc.engine.vllm.output_history.self_test import HistorySelfTest
from executor_svc.engine.vllm.outputs import finish, output_of, prompt_logprobs_of
from executor_svc.engine.vllm.port_reservation import PortReservation
from executor_svc.engine.vllm.pulls import Pulls
from executor_svc.engine.vllm.sampling import (
    invalid_request,
    reasoning_arguments,
    sampling_arguments,
    structured_arguments,
)
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.sleep import EngineSleep
from executor_svc.engine.vllm.step_path.step_path import StepPath
from executor_svc.engine.vllm.step_path.stepped_requests import SteppedRequests
from executor_svc.runtime.engine_port import (
    AdapterSource,
    CacheEvent,
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineLoad,
    EngineOutput,
    EngineRequest,
    InvalidRequestError,
    Iteration,
    JsonValue,
    LoadedAdapter,
    Sampling,
    Step,
    StepReader,
)

log = logging.getLogger(__name__)

WARM_UP_TOKENS = 8


class VllmEngine:
    """A running vLLM engine.  Made by ``VllmEngineFactory``; implements ``runtime.engine_port.Engine``."""

    def __init__(
        self,
        llm: Any,
        load: VllmLoad,
        model: ModelSettings,
        settings: VllmSettings,
        resolved: ResolvedModel,
        side_channel: PortReservation | None = None,
        cache_events: CacheEventChannel | None = None,
        trials: TrialProcess | None = None,
    ) -> None:
        """Serve requests with ``llm``, a started AsyncLLM that reports its statistics to ``load``.

        ``cache_events``: where it tells what its prefix cache holds.  ``trials``: compiles constraints for it on trial.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        self._llm = llm
        self._load = load
        self._tracing = settings.traces_endpoint is not None
        self._wants_history = settings.output_history
        self._sampling_params = SamplingParams
        self._structured_params = StructuredOutputsParams
        self._delta = RequestOutputKind.DELTA
        self._errors = VllmErrors()
        self._connector = configured_connector(settings.kv_transfer)
        self._side_channel = side_channel
        self._cache_events = cache_events
        self._pulls = Pulls()
        load.on_failed_pulls = self._pulls.note_failures
        self._kv_release = self._make_kv_release()
        self._giving_up: set[asyncio.Task[bool]] = set()  # release KV of requests that ended early
        self._gpus = Gpus(llm.vllm_config)
        reports_cache = cache_events is not None
        self._facts = engine_facts(llm, model, settings, resolved, self._gpus, reports_cache=reports_cache)
        load.kv_capacity_tokens = self._facts.kv_capacity_tokens
        self._limits = request_limits(llm.vllm_config, self._facts, settings)
        self._sleep = EngineSleep(llm, able=self._facts.can_sleep, requests=lambda: len(self._active))
        self._adapters = EngineAdapters(
            llm,
            settings.adapters,
            facts=self._facts,
            cache_dir=model.cache_dir,
            bytes_limit=settings.adapter_bytes,
            changed=self._adapters_changed,
        )
        self._trials = trials or trial_process(lambda: llm)
        self._constraints = gate_for(llm, self._trials, settings.constraint_compile_limit_s)
        self._active: dict[str, EngineRequest] = {}  # requests that vLLM has and that have not ended
        self._turns: dict[str, Turn] = {}  # of constraints of submitted requests
        self._prompt_tokens = 0
        self._stopped = False
        self._steps = StepPath(
            llm, self._errors, wanted=settings.step_path, on_first=self._note_first, on_over=self._note_end
        )

    @property
    def facts(self) -> EngineFacts:
        """The fixed properties of this engine."""
        return self._facts

    async def warm_up(self) -> None:
        """Have the engine produce tokens, for the model itself and with each adapter, and learn what it can.

        Raises EngineError, or ModelError for an adapter that does not load.
        """
        await self._adapters.load_all()
        for adapter in (None, *sorted(self._adapters.names)):
            await self._try_out(adapter)
        await self._steps.try_out(self._warm_up_request, self._submit)
        if self._wants_history:
            await self._try_history()

    async def measure_speed(self, limit_s: float) -> None:
        """Measure how fast the engine is, within so many seconds, and count its work from then on.

        With 0 it only counts from then on.  Raises EngineDeadError.
        """
        self._facts = await measured_facts(self, self._load, limit_s)
        self._prompt_tokens = 0

    async def _try_out(self, adapter: str | None) -> None:
        """Run a request of a few tokens.  Raises EngineError."""
        tokens = 0
        async for output in self.generate(self._warm_up_request(adapter or "model", adapter)):
            tokens += len(output.token_ids)
        if tokens != WARM_UP_TOKENS:
            raise EngineError(f"the warm-up request got {tokens} of {WARM_UP_TOKENS} tokens")

    def _warm_up_request(self, name: str, adapter: str | None = None) -> EngineRequest:
        return EngineRequest(
            engine_request_id=f"warm-up/{name}",
            prompt_token_ids=[token % self._facts.vocab_size for token in range(16)],
            sampling=Sampling(temperature=0.0, max_tokens=WARM_UP_TOKENS, ignore_eos=True),
            adapter=adapter,
        )

    async def _try_history(self) -> None:
        """Find out whether requests can continue from an output history.  Raises EngineDeadError."""
        trial = HistorySelfTest(
            self.generate,
            self._llm.get_tokenizer().decode,
            vocab_size=self._facts.vocab_size,
            max_model_len=self._facts.max_model_len,
        )
        failure = await trial.failure()
        if failure is not None:
            log.warning("requests with a seed, penalties or a constraint are replayed after a failover: %s", failure)
        self._facts = replace(self._facts, keeps_output_history=failure is None)

    # --- requests -------------------------------------------------------------------------------------------

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """Run one request, as ``Engine.generate`` describes."""
        self._check(request)
        pull = self._pull_of(request)
        params = self._params_of(request, pull)
        try:
            turn = await self._turn_to_compile(request)
        except asyncio.CancelledError:
            self._give_up_pull(request)
            raise
        try:
            self._refuse_taken(request)  # again: the constraint may have waited long
        except EngineError:
            turn.end(compiled=False)
            raise
        self._active[request.engine_request_id] = request
        if pull is not None:
            self._pulls.begin(request.engine_request_id)
        stream = self._stream_of(request, params)
        started = False
        try:
            async for result in stream:
                output = output_of(result)
                if not started:
                    started = True
                    turn.end(compiled=True)
                    self._begin(output, result, request, pull)
                if result.finished:
                    finish(output, result, request)
                yield output
        except (EngineError, InvalidRequestError):
            raise
        except Exception as error:
            raise self._errors.translated(error, request.sampling, started=started, media=request.media) from error
        finally:
            turn.end(compiled=False)
            del self._active[request.engine_request_id]
            self._pulls.end(request.engine_request_id)
            await stream.aclose()  # aborts the request in vLLM if it has not ended

    def submit(self, request: EngineRequest, reader: StepReader) -> bool:
        """Run one request by steps, as ``Engine.submit`` describes."""
        requests = self._steps.requests_for(request)
        if requests is None:
            return False
        self._submit(request, requests, reader)
        return True

    def _submit(self, request: EngineRequest, requests: SteppedRequests, reader: StepReader) -> None:
        self._check(request)
        lora_request, trace_headers = self._adapter_of(request), self._trace_headers_of(request)
        made = requests.made_like(request, lora_request=lora_request, trace_headers=trace_headers)
        if made is not None:
            self._active[request.engine_request_id] = request
            requests.submit_made(request, reader, made)
            return
        params, arguments = self._params_of(request, None), self._arguments_of(request)
        add = partial(self._llm.add_request, request.engine_request_id, params=params, **arguments)
        if request.sampling.structured_output is not None:
            requests.submit(request, reader, partial(self._add_constrained, request, add), in_task=True)
            return
        self._active[request.engine_request_id] = request
        requests.submit(request, reader, add)

    async def _add_constrained(self, request: EngineRequest, add: Callable[[], Awaitable[Any]]) -> None:
        """Add a request when its constraint may be compiled.  Until then the engine does not have it."""
        turn = await self._turn_to_compile(request)
        try:
            self._refuse_when_stopped()  # again: the engine may have been shut down while the constraint waited
            self._sleep.refuse_when_asleep()
            self._active[request.engine_request_id] = request
            self._turns[request.engine_request_id] = turn
            await add()
        except BaseException:
            turn.end(compiled=False)
            raise

    async def abort(self, engine_request_id: str) -> None:
        """Abort a submitted request, as ``Engine.abort`` describes."""
        self._refuse_when_stopped()
        await self._steps.abort(engine_request_id)

    def on_outputs(self, callback: Callable[[Step], None]) -> None:
        """Have ``callback`` take the outputs of submitted requests, at most 128 at a time."""
        self._steps.on_outputs(callback)

    def _note_first(self, request: EngineRequest) -> None:
        self._count_prompt(request)
        if request.engine_request_id in self._turns:
            self._turns[request.engine_request_id].end(compiled=True)

    def _count_prompt(self, request: EngineRequest) -> None:
        self._prompt_tokens += request.prompt_tokens

    def _note_end(self, request: EngineRequest) -> None:
        self._active.pop(request.engine_request_id, None)
        turn = self._turns.pop(request.engine_request_id, None)
        if turn is not None:
            turn.end(compiled=False)

    def _check(self, request: EngineRequest) -> None:
        self._refuse_taken(request)
        refuse_invalid(request, self._limits)

    def _refuse_taken(self, request: EngineRequest) -> None:
        """Raise EngineError if the engine cannot begin a request of this id now."""
        self._refuse_when_stopped()
        self._sleep.refuse_when_asleep()
        if request.engine_request_id in self._active or self._steps.has(request.engine_request_id):
            raise EngineError(f"engine request id {request.engine_request_id!r} is in use")

    async def _turn_to_compile(self, request: EngineRequest) -> Turn:
        """Wait until the request's constraint may be compiled.  Raises InvalidRequestError, EngineError."""
        constraint = request.sampling.structured_output
        return Turn() if constraint is None or self._constraints is None else await self._constraints.admit(constraint)

    async def stop(self, engine_request_id: str) -> None:
        """End a request early, as ``Engine.stop`` describes.

        ``AsyncLLM.abort`` forgets the request at once, and would lose the last output of one that was just over.  So
        the engine core aborts it first.  When the core has answered a second call, all its earlier outputs have
        arrived.
        """
        self._refuse_when_stopped()
        core, known = self._llm.engine_core, self._llm.output_processor.external_req_ids
        try:
            await core.abort_requests_async(list(known.get(engine_request_id, ())))
            await core.get_supported_tasks_async()
            await self._llm.abort(engine_request_id)
        except Exception as error:
            raise self._errors.translated(error, Sampling(), started=True) from error

    def _refuse_when_stopped(self) -> None:
        if self._stopped:
            raise EngineDeadError("the engine was shut down")

    def _pull_of(self, request: EngineRequest) -> Pull | None:
        """Return the KV to fetch, if any.

        Raises EngineError for a handoff that is broken or belongs to another prompt.
        """
        if self._connector is None or request.kv_transfer_params is None:
            return None
        prompt = request.prompt_token_ids
        params = opened(request.kv_transfer_params, prompt, request.adapter)
        try:
            return self._connector.pull(params, len(prompt), self._facts.kv_block_size)
        except UnusableParams as error:
            raise EngineError(f"the handoff {error}") from error

    def _params_of(self, request: EngineRequest, pull: Pull | None) -> Any:
        """Make vLLM's SamplingParams.  Raises InvalidRequestError."""
        transfer = None if pull is None else pull.params
        if self._connector is not None and request.prefill_only:
            transfer = self._connector.prefill_params()
        arguments = sampling_arguments(request.sampling, transfer, request.output_history)
        constraint = request.sampling.structured_output
        try:
            if constraint is not None:
                arguments["structured_outputs"] = self._structured_params(**structured_arguments(constraint))
            return self._sampling_params(output_kind=self._delta, **arguments)
        except self._errors.invalid_params as error:
            raise invalid_request(error, request.sampling) from error

    async def _stream_of(self, request: EngineRequest, params: Any) -> AsyncGenerator[Any, None]:
        arguments = self._arguments_of(request)
        prompt = arguments.pop("prompt")
        if request.media:
            prompt |= await prompt_with_media(request, self._facts.media)
        async with aclosing(self._llm.generate(prompt, params, request.engine_request_id, **arguments)) as stream:
            async for result in stream:
                forget_media(prompt)
                yield result

    def _arguments_of(self, request: EngineRequest) -> dict[str, Any]:
        """Return what ``AsyncLLM.generate`` and ``add_request`` take beside id and sampling."""
        prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt_token_ids)}
        if request.sampling.structured_output is None and not request.media:
            # A typed prompt skips preprocessing, where vLLM 0.32 checks constraints in a thread.
            prompt["type"] = "token"
        if request.sampling.cache_salt is not None:
            prompt["cache_salt"] = request.sampling.cache_salt
        return {
            "prompt": prompt,
            "lora_request": self._adapter_of(request),
            "trace_headers": self._trace_headers_of(request),
            "priority": request.priority,
            **reasoning_arguments(request.sampling.structured_output),
        }

    def _adapter_of(self, request: EngineRequest) -> Any:
        return None if request.adapter is None else self._adapters.request(request.adapter)

    def _trace_headers_of(self, request: EngineRequest) -> Mapping[str, str] | None:
        return request.trace_headers if self._tracing else None

    def _begin(self, output: EngineOutput, result: Any, request: EngineRequest, pull: Pull | None) -> None:
        """Set the fields that only a request's first output has."""
        self._count_prompt(request)
        output.cached_prompt_tokens = result.num_cached_tokens
        if pull is not None:
            output.kv_pull_failed = self._pulls.first_output(request.engine_request_id, pull, result.num_cached_tokens)
            if not output.kv_pull_failed:
                output.cached_prompt_tokens = pull.cached_tokens or 0
        output.prompt_logprobs = prompt_logprobs_of(result)

    # --- KV for and from other engines ----------------------------------------------------------------------

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        """Tell another engine that nobody will fetch the KV it keeps, as ``Engine.release_kv`` describes."""
        self._refuse_when_stopped()
        if self._kv_release is None:
            raise EngineError("this engine has no KV connector")
        return await self._kv_release.release(kv_transfer_params)

    def _give_up_pull(self, request: EngineRequest) -> None:
        """Release the KV of a request that ends before vLLM has it.  vLLM does so for those that it has."""
        if request.kv_transfer_params is not None and self._kv_release is not None:
            releasing = self._kv_release.release(request.kv_transfer_params)
            task = asyncio.get_running_loop().create_task(releasing, name=f"release-{request.engine_request_id}")
            self._giving_up.add(task)
            task.add_done_callback(self._gave_up)

    def _gave_up(self, task: asyncio.Task[bool]) -> None:
        self._giving_up.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("KV that nobody fetches stays until its lease ends: %s", first_line(error))

    def _make_kv_release(self) -> KvRelease | None:
        if self._connector is None:
            return None

        async def reject(name: str, params: dict[str, JsonValue]) -> None:
            await self._llm.notify_kv_transfer_request_rejected(name, params)

        return KvRelease(
            connector=self._connector,
            load=self._load,
            pulls=self._pulls,
            errors=self._errors,
            reject=reject,
            take_step=self._take_step,
        )

    async def _take_step(self, engine_request_id: str) -> None:
        """Run a request of one token, so that the engine runs a step."""
        sampling = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
        step = EngineRequest(engine_request_id=engine_request_id, prompt_token_ids=[0], sampling=sampling)
        async for _ in self.generate(step):
            pass

    # --- adapters -------------------------------------------------------------------------------------------

    async def add_adapter(self, source: AdapterSource) -> LoadedAdapter:
        """Load a LoRA adapter, as ``Engine.add_adapter`` describes."""
        self._refuse_when_stopped()
        return await self._adapters.add(source, self._try_out)

    async def remove_adapter(self, name: str) -> None:
        """Unload a LoRA adapter, as ``Engine.remove_adapter`` describes."""
        self._refuse_when_stopped()
        await self._adapters.remove(name)

    def _adapters_changed(self, names: Mapping[str, str]) -> None:
        self._limits = replace(self._limits, adapters=frozenset(names.values()))
        if self._cache_events is not None:
            self._cache_events.adapters = names

    # --- sleep ----------------------------------------------------------------------------------------------

    async def sleep(self) -> None:
        """Fall asleep, as ``Engine.sleep`` describes."""
        self._refuse_when_stopped()
        await self._sleep.sleep()

    async def wake_up(self) -> None:
        """Wake up, as ``Engine.wake_up`` describes."""
        self._refuse_when_stopped()
        await self._sleep.wake_up()

    # --- watching and stopping ------------------------------------------------------------------------------

    def load(self) -> EngineLoad:
        """Return the load as of the latest step."""
        return self._load.snapshot(
            unfinished=len(self._active),
            prompt_tokens_total=self._prompt_tokens,
            gpu_memory_used_bytes=self._gpus.used_bytes(),
            known_wait=self._known_wait(),
            submissions=self._steps.submissions,
        )

    def _known_wait(self) -> str | None:
        """Return why the waiting requests do not run; None if one runs or they wait for capacity."""
        if self._load.running or not self._load.blocked:
            return None
        requests = self._active.values()
        if any(request.kv_transfer_params is not None for request in requests):
            return "a KV transfer"
        if any(request.sampling.structured_output is not None for request in requests):
            return "a grammar being compiled"
        return None

    def take_iterations(self) -> Sequence[Iteration]:
        """Return the iterations since the last call, oldest first, at most the latest 256."""
        return self._load.take_iterations()

    def take_cache_events(self) -> Sequence[CacheEvent]:
        """Return what changed in the prefix cache since the last call, oldest first."""
        return () if self._cache_events is None else self._cache_events.take()

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each step, when all its outputs were taken."""
        self._load.on_step(callback)

    async def check_health(self) -> None:
        """Raise EngineDeadError if the engine is gone."""
        self._refuse_when_stopped()
        if self._llm.errored:
            raise EngineDeadError("the engine core is gone")

    async def shutdown(self) -> None:
        """End the engine and every process it started.  Idempotent."""
        self._stopped = True
        for task in self._giving_up:
            task.cancel()
        llm, self._llm = self._llm, None
        if llm is None:
            return
        self._steps.end_all("the engine was shut down")
        end_outputs(llm, self._errors.dead())
        await self._trials.close()  # not before: requests would go on meanwhile
        await end_llm(llm)
        if self._side_channel is not None:
            self._side_channel.close()
        if self._cache_events is not None:
            self._cache_events.close()
