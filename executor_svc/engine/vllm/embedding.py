"""Serves embeddings on a started vLLM engine, one that pools instead of generating."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from executor_svc.engine.checks import Limits, refuse_invalid
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.adapters import EngineAdapters
from executor_svc.engine.vllm.async_llm import end_llm, end_outputs
from executor_svc.engine.vllm.errors import VllmErrors
from executor_svc.engine.vllm.facts import embedding_facts
from executor_svc.engine.vllm.gpus import Gpus
from executor_svc.engine.vllm.load import VllmLoad
from executor_svc.engine.vllm.measuring import measured_facts
from executor_svc.engine.vllm.models import ResolvedModel
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.sleep import EngineSleep
from executor_svc.runtime.engine_port import (
    AdapterSource,
    CacheEvent,
    EmbeddingOptions,
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineLoad,
    EngineOutput,
    EngineRequest,
    FinishReason,
    InvalidRequestError,
    Iteration,
    JsonValue,
    LoadedAdapter,
    ModelError,
    Sampling,
    Step,
    StepReader,
)

EMBED, CLASSIFY = "embed", "classify"
"""vLLM's names for one vector per prompt, and for one number per class."""


async def task_of(llm: Any, model: str) -> str:
    """Return which of the two an AsyncLLM does.  Raises ModelError if it does neither."""
    tasks = await llm.get_supported_tasks()
    for task in (EMBED, CLASSIFY):
        if task in tasks:
            return task
    raise ModelError(f"{model} does not embed; vLLM uses it to {', '.join(sorted(tasks))}")


class VllmEmbeddingEngine:
    """A running vLLM engine that embeds.  Made by ``VllmEngineFactory``; implements ``runtime.engine_port.Engine``.

    Every request runs through ``AsyncLLM.encode``: a vector is one output, so steps have nothing to gain.
    """

    def __init__(
        self,
        llm: Any,
        load: VllmLoad,
        model: ModelSettings,
        settings: VllmSettings,
        resolved: ResolvedModel,
        task: str = EMBED,
    ) -> None:
        """Embed with ``llm``, a started AsyncLLM that reports its statistics to ``load``.  ``task``: of ``task_of``."""
        from vllm import PoolingParams

        self._llm = llm
        self._task = task
        self._load = load
        self._tracing = settings.traces_endpoint is not None
        self._pooling_params = PoolingParams
        self._errors = VllmErrors()
        self._gpus = Gpus(llm.vllm_config)
        self._facts = embedding_facts(llm, model, settings, resolved, self._gpus, classifies=task == CLASSIFY)
        load.kv_capacity_tokens = self._facts.kv_capacity_tokens
        self._limits = Limits(
            vocab_size=self._facts.vocab_size,
            max_model_len=self._facts.max_model_len,
            max_logprobs=0,
            adapters=frozenset(self._facts.adapters),
            kv_connector=False,
            output_history=False,
            embedding_dimensions=self._facts.embedding_dimensions,
            classifies=self._facts.classifies,
        )
        self._sleep = EngineSleep(llm, able=self._facts.can_sleep, requests=lambda: len(self._active))
        self._adapters = EngineAdapters(
            llm,
            settings.adapters,
            facts=self._facts,
            cache_dir=model.cache_dir,
            bytes_limit=settings.adapter_bytes,
            changed=self._adapters_changed,
        )
        self._active: set[str] = set()  # ids of requests that vLLM has
        self._prompt_tokens = 0
        self._stopped = False

    @property
    def facts(self) -> EngineFacts:
        """The fixed properties of this engine."""
        return self._facts

    async def warm_up(self) -> None:
        """Have the engine make a vector, for the model itself and with each adapter.

        Raises EngineError, or ModelError if an adapter does not load.
        """
        await self._adapters.load_all()
        for adapter_name in (None, *sorted(self._adapters.names)):
            await self._try_out(adapter_name)

    async def measure_speed(self, limit_s: float) -> None:
        """Measure how fast the engine is, within so many seconds, and count its work from then on.

        With 0 it only counts from then on.  Raises EngineDeadError.
        """
        self._facts = await measured_facts(self, self._load, limit_s)
        self._prompt_tokens = 0

    async def _try_out(self, adapter: str | None) -> None:
        """Make a vector.  Raises EngineError."""
        request = EngineRequest(
            engine_request_id=f"warm-up/{adapter or 'model'}",
            prompt_token_ids=[token % self._facts.vocab_size for token in range(16)],
            sampling=Sampling(),
            adapter=adapter,
            embedding=EmbeddingOptions(),
        )
        size = 0
        async for output in self.generate(request):
            size = len(output.embedding or b"") // 4
        if size != self._facts.embedding_dimensions:
            raise EngineError(f"the warm-up gave {size} numbers instead of {self._facts.embedding_dimensions}")

    # --- requests -------------------------------------------------------------------------------------------

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """Make the vector of one request, which is its only output."""
        self._refuse_when_stopped()
        self._sleep.refuse_when_asleep()
        refuse_invalid(request, self._limits)
        if request.engine_request_id in self._active:
            raise EngineError(f"engine request id {request.engine_request_id!r} is in use")
        options = request.embedding
        assert options is not None, "refuse_invalid lets no other request through"
        self._active.add(request.engine_request_id)
        stream = self._stream_of(request, options)
        try:
            async for result in stream:
                self._prompt_tokens += len(request.prompt_token_ids)
                yield _output_of(result)
                return
        except Exception as error:
            raise self._translated(error, options) from error
        finally:
            self._active.discard(request.engine_request_id)
            await stream.aclose()  # aborts the request in vLLM if it has not ended

    def _stream_of(self, request: EngineRequest, options: EmbeddingOptions) -> AsyncGenerator[Any, None]:
        last_step = False if options.raw else True if options.normalize else None  # None: as the model is configured
        params = self._pooling_params(task=self._task, dimensions=options.dimensions, use_activation=last_step)
        # A typed prompt skips preprocessing, which has nothing to do for token ids.
        prompt = {"prompt_token_ids": list(request.prompt_token_ids), "type": "token"}
        stream: AsyncGenerator[Any, None] = self._llm.encode(
            prompt,
            params,
            request.engine_request_id,
            lora_request=None if request.adapter is None else self._adapters.request(request.adapter),
            trace_headers=request.trace_headers if self._tracing else None,
            priority=request.priority,
        )
        return stream

    def _translated(self, error: Exception, options: EmbeddingOptions) -> Exception:
        """Return the port's error for what vLLM raised; only its check of the vector's length can be the caller's."""
        found = self._errors.translated(error, Sampling(), started=False)
        if isinstance(found, InvalidRequestError):
            field = "dimensions" if options.dimensions is not None else "prompt"
            return InvalidRequestError(field, found.message)
        return found

    def submit(self, request: EngineRequest, reader: StepReader) -> bool:
        """Return False: every request runs by ``generate``."""
        return False

    async def abort(self, engine_request_id: str) -> None:
        """Do nothing: no request is submitted by steps."""

    def on_outputs(self, callback: Callable[[Step], None]) -> None:
        """Do nothing: no outputs come by steps."""

    async def stop(self, engine_request_id: str) -> None:
        """End a request early.  Raises EngineDeadError."""
        self._refuse_when_stopped()
        await self._llm.abort(engine_request_id)

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        """Raise EngineError: this engine has no KV connector."""
        raise EngineError("this engine has no KV connector")

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
        """Return the current load."""
        return self._load.snapshot(
            unfinished=len(self._active),
            prompt_tokens_total=self._prompt_tokens,
            gpu_memory_used_bytes=self._gpus.used_bytes(),
        )

    def take_iterations(self) -> Sequence[Iteration]:
        """Return the iterations since the last call, oldest first, at most the latest 256."""
        return self._load.take_iterations()

    def take_cache_events(self) -> Sequence[CacheEvent]:
        """Return nothing: this engine does not tell what its prefix cache holds."""
        return ()

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each step, when all its outputs were taken."""
        self._load.on_step(callback)

    async def check_health(self) -> None:
        """Raise EngineDeadError if the engine is gone."""
        self._refuse_when_stopped()
        if self._llm.errored:
            raise EngineDeadError("the engine core is gone")

    def _refuse_when_stopped(self) -> None:
        if self._stopped:
            raise EngineDeadError("the engine was shut down")

    async def shutdown(self) -> None:
        """End the engine and every process it started.  Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        llm = self._llm
        end_outputs(llm, self._errors.dead())
        await end_llm(llm)


def _output_of(result: Any) -> EngineOutput:
    """Return vLLM's PoolingRequestOutput as the port's."""
    data = result.outputs.data.float().cpu().numpy().astype("<f4", copy=False)
    return EngineOutput(
        token_ids=[],
        finish_reason=FinishReason.STOP,
        embedding=data.tobytes(),
        cached_prompt_tokens=getattr(result, "num_cached_tokens", None),
    )
