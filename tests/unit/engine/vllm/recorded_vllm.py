"""Stand-ins for vLLM's modules, made of recorded signatures: what the release did not have, they do not have.

Classes refuse unknown arguments, objects lack unknown attributes, and methods refuse calls that the real ones would.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import sys
import time
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

from executor_svc.engine.simulated.tokenizer import tokenizer_for
from tests.unit.engine.vllm.recorded_processor import RecordedProcessor
from tests.unit.engine.vllm.release import Release

LLM = "vllm.v1.engine.async_llm:AsyncLLM"
CORE = "vllm.v1.engine.core_client:AsyncMPClient"
PLATFORM = "vllm.platforms.interface:Platform"


class RecordedVllm:
    """The modules, and the one engine that is made through them.  Tests set ``script`` to say what it answers."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.engine_args: Any = None
        self.calls: list[dict[str, Any]] = []  # of generate
        self.script: Callable[[dict[str, Any]], AsyncIterator[Any]] = self.count_up
        self.rejections: list[tuple[str, dict[str, Any]]] = []  # KV transfers given up
        self.worker_calls: list[str] = []  # methods called in the workers
        self.internal_ids: dict[str, list[str]] = {}  # by the id a request was given with
        self.stops: list[tuple[str, Any]] = []  # what was called to end requests, and about which
        self.errored = False
        self.stopped = False
        self.processor: Any = None  # a RecordedProcessor, once an engine was made
        self.prepare: Callable[[RecordedProcessor], None] = lambda processor: None  # before our code sees it
        self._logger: Any = None
        self.exceptions = release.exceptions("vllm.exceptions")
        self.engine_exceptions = release.exceptions("vllm.v1.engine.exceptions")
        members = release.classes["vllm.sampling_params:RequestOutputKind"]["members"]
        self.output_kind = enum.Enum("RequestOutputKind", members)  # type: ignore[misc]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the stand-ins where ``import vllm`` finds them."""
        release = self.release
        value = release.value_class
        structured = "vllm.sampling_params:StructuredOutputsParams"
        contents: dict[str, dict[str, Any]] = {
            "vllm": {"__version__": release.version, "SamplingParams": value("vllm.sampling_params:SamplingParams")},
            "vllm.sampling_params": {
                "RequestOutputKind": self.output_kind,
                "StructuredOutputsParams": value(structured),
            },
            "vllm.lora.request": {"LoRARequest": value("vllm.lora.request:LoRARequest")},
            "vllm.engine.arg_utils": {"AsyncEngineArgs": self._engine_args_class()},
            "vllm.v1.engine": {
                name: release.class_with_all(f"vllm.v1.engine:{name}")
                for name in ("EngineCoreOutput", "EngineCoreRequest")
            },
            "vllm.v1.engine.async_llm": {"AsyncLLM": self._llm_class()},
            "vllm.v1.engine.output_processor": {
                "RequestState": release.class_with_all("vllm.v1.engine.output_processor:RequestState")
            },
            "vllm.v1.metrics.stats": {
                name: release.class_with_all(f"vllm.v1.metrics.stats:{name}")
                for name in ("IterationStats", "RequestStateStats")
            },
            "vllm.v1.metrics.loggers": {"StatLoggerBase": object},
            "vllm.platforms": {"current_platform": self._platform()},
        }
        for name, content in contents.items():
            for parent in _with_parents(name):
                if parent not in contents or parent == name:
                    module = types.ModuleType(parent)
                    module.__path__ = []
                    patch.setitem(sys.modules, parent, module)
            sys.modules[name].__dict__.update(content)
        patch.setitem(sys.modules, "vllm.exceptions", self.exceptions)
        patch.setitem(sys.modules, "vllm.v1.engine.exceptions", self.engine_exceptions)
        sys.modules["vllm"].exceptions = self.exceptions  # type: ignore[attr-defined]
        sys.modules["vllm.v1.engine"].exceptions = self.engine_exceptions  # type: ignore[attr-defined]

    def _engine_args_class(self) -> type[Any]:
        value = self.release.value_class
        key = "vllm.engine.arg_utils:EngineArgs"
        types_of = {
            "structured_outputs_config": value("vllm.config.structured_outputs:StructuredOutputsConfig"),
            "kv_transfer_config": value("vllm.config.kv_transfer:KVTransferConfig"),
        }
        fields = [(name, types_of.get(name, Any), dataclasses.field(default=None)) for name in self.release.fields(key)]
        return dataclasses.make_dataclass("AsyncEngineArgs", fields, kw_only=True)

    def _platform(self) -> Any:
        platform = self.release.thing(PLATFORM, device_type="cpu")
        platform.is_cpu = self.release.checked(PLATFORM, "is_cpu", lambda: True)
        platform.is_cuda = self.release.checked(PLATFORM, "is_cuda", lambda: False)
        return platform

    def _llm_class(self) -> Any:
        def from_engine_args(engine_args: Any, stat_loggers: list[Any], **rest: object) -> Any:
            self.engine_args = engine_args
            config = self._config(engine_args)
            self._logger = self._checked_logger(stat_loggers[0](config, 0))
            return self._llm(config)

        return types.SimpleNamespace(from_engine_args=self.release.checked(LLM, "from_engine_args", from_engine_args))

    def _checked_logger(self, logger: Any) -> Callable[..., Any]:
        """Call our logger with what this release calls it with."""
        key = "vllm.v1.metrics.loggers:StatLoggerBase"
        wanted = self.release.classes[key]["methods"]["record"]["positional"]
        logger.log_engine_initialized()
        return lambda **stats: logger.record(**{name: stats.get(name) for name in wanted if name != "self"})

    def _config(self, engine_args: Any) -> Any:
        thing = self.release.thing
        model = thing("vllm.config.model:ModelConfig", dtype="torch.float32", max_model_len=1024, max_logprobs=20)
        model.get_vocab_size = lambda: 2048
        for number, method in enumerate(("get_total_num_kv_heads", "get_head_size", "get_total_num_hidden_layers")):
            setattr(model, method, self.release.checked("vllm.config.model:ModelConfig", method, lambda n=number: n))
        model.try_get_generation_config = lambda: {"eos_token_id": [7]}
        return thing(
            "vllm.config.vllm:VllmConfig",
            model_config=model,
            cache_config=thing("vllm.config.cache:CacheConfig", kv_cache_size_tokens=4096, block_size=16),
            parallel_config=thing(
                "vllm.config.parallel:ParallelConfig",
                tensor_parallel_size=1,
                pipeline_parallel_size=1,
                data_parallel_size=1,
            ),
            scheduler_config=thing(
                "vllm.config.scheduler:SchedulerConfig",
                policy=engine_args.scheduling_policy,
                max_num_seqs=8,
                max_num_batched_tokens=512,
            ),
            structured_outputs_config=thing(
                "vllm.config.structured_outputs:StructuredOutputsConfig",
                backend="xgrammar",
                disable_any_whitespace=False,
            ),
        )

    def _llm(self, config: Any) -> Any:
        release = self.release
        self.processor = RecordedProcessor(release, self.output, self.record)
        self.prepare(self.processor)
        processor = self.processor.thing
        processor.external_req_ids = self.internal_ids
        core = release.thing(CORE)
        for name in ("abort_requests_async", "get_supported_tasks_async"):
            setattr(core, name, release.checked(CORE, name, self._noting(name)))
        core.get_output_async = release.checked(CORE, "get_output_async", self._next_outputs)
        llm = release.thing(LLM, vllm_config=config, errored=False, output_processor=processor, engine_core=core)
        llm.abort = release.checked(LLM, "abort", self._abort)
        llm.add_request = release.checked(LLM, "add_request", self.processor.add_request)
        llm._add_request = release.checked(LLM, "_add_request", self.processor.add_made)
        llm.generate = release.checked(LLM, "generate", self._generate)
        llm.shutdown = release.checked(LLM, "shutdown", lambda timeout: setattr(self, "stopped", True))
        llm.get_tokenizer = release.checked(LLM, "get_tokenizer", self._tokenizer)

        async def add_lora(lora_request: Any) -> bool:
            return True

        async def reject(request_id: str, kv_transfer_params: dict[str, Any], data_parallel_rank: Any) -> None:
            self.rejections.append((request_id, kv_transfer_params))
            self.record(0, iteration_details=None)

        async def call_workers(method: str, **rest: object) -> list[None]:
            self.worker_calls.append(method)
            return [None]

        llm.collective_rpc = release.checked(LLM, "collective_rpc", call_workers)
        name = "notify_kv_transfer_request_rejected"
        setattr(llm, name, release.checked(LLM, name, reject))
        llm.add_lora = release.checked(LLM, "add_lora", add_lora)
        return llm

    @staticmethod
    def _tokenizer() -> Any:
        backend: Tokenizer = tokenizer_for(2048)
        return types.SimpleNamespace(
            backend_tokenizer=backend,
            chat_template={"default": "{{ messages }}", "tools": "{{ tools }}"},
            decode=backend.decode,
            special_tokens_map={"eos_token": "<|im_end|>", "extra": ["a", "b"]},
            eos_token_id=258,
        )

    async def _next_outputs(self) -> Any:
        """A step's outputs as the engine core sends them; what reads them is not part of the release."""
        return self.release.thing("vllm.v1.engine:EngineCoreOutputs", timestamp=time.monotonic())

    def _noting(self, name: str) -> Callable[..., Any]:
        async def note(request_ids: Any = None, request_id: Any = None, internal: Any = None) -> None:
            self.stops.append((name, request_ids if request_id is None else request_id))

        return note

    async def _abort(self, request_id: Any, internal: Any) -> None:
        self.stops.append(("abort", request_id))
        if internal:
            self.processor.abort(request_id)

    def _generate(self, **call: Any) -> AsyncIterator[Any]:
        self.calls.append(call)
        return self.script(call)

    async def count_up(self, call: dict[str, Any]) -> AsyncIterator[Any]:
        """500, 501, ... up to max_tokens; statistics after each."""
        count = call["sampling_params"].max_tokens
        for index in range(count):
            finished = index == count - 1
            yield self.output([500 + index], finish_reason="length" if finished else None)
            self.record(index)
            await asyncio.sleep(0)

    def output(self, token_ids: list[int], *, finish_reason: str | None = None, **more: Any) -> Any:
        """A RequestOutput.  ``stop_reason`` and ``logprobs`` go into its completion."""
        assert finish_reason is None or finish_reason in self.release.finish_reasons
        inner = {name: more.pop(name) for name in ("stop_reason", "logprobs") if name in more}
        completion = self.release.thing(
            "vllm.outputs:CompletionOutput", token_ids=token_ids, finish_reason=finish_reason, **inner
        )
        finished = finish_reason is not None
        return self.release.thing(
            "vllm.outputs:RequestOutput",
            **{
                "outputs": [completion],
                "finished": finished,
                "num_cached_tokens": 3,
                "metrics": self.timed(0.0),
                **more,
            },
        )

    def timed(self, ago_s: float) -> Any:
        """Statistics of a request whose last token came so long ago."""
        last = time.monotonic() - ago_s
        return self.release.thing("vllm.v1.metrics.stats:RequestStateStats", last_token_ts=last)

    def record(self, index: int, **scheduler: Any) -> None:
        """Report one step that decoded one token."""
        stats = "vllm.v1.metrics.stats:"
        details = self.release.thing(
            f"{stats}SchedulerIterationDetails",
            iteration_index=index,
            num_ctx_requests=0,
            num_ctx_tokens=0,
            num_generation_requests=1,
            num_generation_tokens=1,
            elapsed_ms=5.0,
            is_dummy=False,
        )
        values = {
            "num_running_reqs": 1,
            "num_waiting_reqs": 2,
            "num_skipped_waiting_reqs": 1,
            "kv_cache_usage": 0.25,
            "iteration_details": details,
            "prefix_cache_stats": self.release.thing(f"{stats}BaseCacheStats", queries=10, hits=4),
        }
        self._logger(
            scheduler_stats=self.release.thing(f"{stats}SchedulerStats", **{**values, **scheduler}),
            iteration_stats=self.release.thing(f"{stats}IterationStats", num_generation_tokens=1),
            mm_cache_stats=None,
            engine_idx=0,
        )


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]
