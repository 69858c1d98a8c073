"""The settings of a vLLM engine.  Unknown keys are errors."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from executor_svc.engine.common_settings import KvTransferSettings, SettingsSection
from executor_svc.engine.vllm.request_options import PARAMETERS, RESERVED

OWNED_ENGINE_ARGS: dict[str, str] = {
    "model": "model.model",
    "served_model_name": "model.served_name",
    "revision": "model.revision",
    "download_dir": "model.cache_dir",
    "tokenizer": "model.tokenizer",
    "tokenizer_revision": "model.tokenizer_revision",
    "trust_remote_code": "model.trust_remote_code",
    "dtype": "vllm.dtype",
    "tensor_parallel_size": "vllm.tensor_parallel_size",
    "pipeline_parallel_size": "vllm.pipeline_parallel_size",
    "data_parallel_size": "vllm.data_parallel_size",
    "enable_sleep_mode": "vllm.sleep_mode",
    "gpu_memory_utilization": "vllm.gpu_memory_utilization",
    "max_model_len": "vllm.max_model_len",
    "max_num_seqs": "vllm.max_running",
    "max_num_batched_tokens": "vllm.max_batched_tokens",
    "kv_cache_memory_bytes": "vllm.kv_cache_bytes",
    "block_size": "vllm.kv_block_size",
    "seed": "vllm.seed",
    "enforce_eager": "vllm.enforce_eager",
    "enable_prefix_caching": "vllm.prefix_caching",
    "enable_lora": "vllm.adapters",
    "otlp_traces_endpoint": "vllm.traces_endpoint",
    "kv_transfer_config": "vllm.kv_transfer",
    "kv_events_config": "vllm.report_prefix_cache",
}
"""vLLM engine arguments that have a setting, and the key of that setting."""

FIXED_ENGINE_ARGS: dict[str, str] = {
    "scheduling_policy": "priority: a request's class must reach the engine",
    "skip_tokenizer_init": "off: the scheduler tokenizes with this engine's tokenizer",
    "disable_log_stats": "off: heartbeats and progress use the statistics",
    "enable_logging_iteration_details": "on: progress and prediction use iteration details",
    "worker_extension_cls": "ours: the engine's processes must not outlive the executor",
    "stream_interval": "1: every step's tokens go out at once",
}
"""vLLM engine arguments that the executor sets itself, and why."""


class VllmSettings(SettingsSection):
    """The vLLM engine.  An argument without a field here can be set in ``engine_args`` by vLLM's own name."""

    dtype: str = Field(
        default="auto", description="Data type of weights and activations: auto, bfloat16, float16, float32."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="Number of GPUs that each layer is split over.")
    pipeline_parallel_size: int = Field(
        default=1, ge=1, description="Number of groups of GPUs that the layers are split over."
    )
    ray_placement_group: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a Ray placement group whose GPUs the engine's workers take, on several nodes; a fleet on "
        "Ray sets it.  Default: none, all GPUs are this machine's.",
    )
    data_parallel_size: int = Field(
        default=1,
        ge=1,
        le=1,
        description="Replicas inside one engine.  Must be 1: run one executor per replica.",
    )
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0.0, le=1.0, description="Share of each GPU's memory to use, 0 to 1.  Default: vLLM's own."
    )
    max_model_len: int | None = Field(
        default=None,
        ge=2,
        description="Most tokens of a prompt and its output together.  Default: the model's own limit.",
    )
    max_running: int | None = Field(
        default=None, ge=1, description="Most sequences that run at once (max_num_seqs).  Default: vLLM's own."
    )
    max_batched_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens computed in one step; longer prompts take several.  Default: vLLM's own.",
    )
    kv_cache_bytes: int | None = Field(
        default=None,
        ge=1 << 20,
        description="Size of the KV cache in bytes.  Default: all free memory (GPU), vLLM's own (CPU).",
    )
    kv_block_size: int | None = Field(default=None, ge=1, description="Tokens of one KV block.  Default: vLLM's own.")
    seed: int = Field(default=0, ge=0, description="Seed of requests that set none.")
    enforce_eager: bool = Field(
        default=False, description="Capture no CUDA graphs: starts faster, computes slower on a GPU."
    )
    prefix_caching: bool | None = Field(
        default=None, description="Reuse the KV of earlier prompts with the same beginning.  Default: vLLM's own."
    )
    report_prefix_cache: bool = Field(
        default=True,
        description="Tell the scheduler what the prefix cache holds, from vLLM's own events; needs prefix_caching.",
    )
    cpu_cores: str | None = Field(
        default=None,
        pattern=r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*(\|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)*$",
        description="CPU build only: cores to bind to, like '0-3' or '0,2'; '|' between ranks.  Two engines "
        "on one machine must not share cores.  Default: vLLM chooses.",
    )
    adapters: dict[str, str] = Field(
        default_factory=dict, description="LoRA adapters as name=path or name=hub id; clients ask for the name."
    )
    adapter_slots: int = Field(
        default=0,
        ge=0,
        le=1_024,
        description="LoRA adapters that operators may add while the engine runs (sagectl adapter add), beside those in "
        "adapters; they are kept in the host's memory.  0: none.  engine_args.max_lora_rank bounds their rank (16).",
    )
    adapter_bytes: int = Field(
        default=4 << 30,
        ge=1,
        description="Most bytes of one adapter's files from the hub; a larger one is refused before it is downloaded.",
    )
    sleep_mode: bool = Field(
        default=False,
        description="Let the engine sleep, with its weights in the host's memory, while others use the GPU.  vLLM can "
        "do so on GPUs only, without kv_transfer, and takes host memory as large as the weights.",
    )
    traces_endpoint: str | None = Field(
        default=None,
        description="OTLP endpoint for the engine's own spans.  Default: telemetry.otlp_endpoint.",
    )
    kv_transfer: KvTransferSettings = Field(
        default_factory=KvTransferSettings, description="Transfer of a prompt's KV between engines."
    )
    output_history: bool = Field(
        default=True,
        description="Continue requests of lost instances from their delivered tokens as output.  Decided by a "
        "self-test at the start; off, or where it fails, requests with a seed, penalties or a constraint are replayed.",
    )
    step_path: bool = Field(
        default=True,
        description="Take each step's tokens of all requests at once, from inside vLLM.  Decided by a check at the "
        "start; off, or where it fails, each request is read through AsyncLLM.generate, at twice the CPU per token.",
    )
    constraint_compile_limit_s: float = Field(
        default=5.0,
        ge=0.0,
        le=600.0,
        description="Most seconds of CPU time that compiling a request's JSON schema, regex, choice or grammar may "
        "take; it is tried in a process of its own before the engine gets it.  0: not tried.",
    )
    request_options: tuple[str, ...] = Field(
        default=(),
        description="Options that requests may set by vLLM's names (SamplingParams.engine_options): "
        f"{', '.join(PARAMETERS)}, and keys of vLLM's extra_args, which plugins read.  Default: none.",
    )
    start_timeout_s: float = Field(
        default=1800.0,
        gt=0.0,
        description="Most seconds that the engine may take to load and warm up; then the executor exits.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further vLLM engine arguments by their Python names (max_logprobs, ...).",
    )

    @model_validator(mode="after")
    def _sleeps_without_kv_transfer(self) -> Self:
        if self.sleep_mode and self.kv_transfer.connector:
            raise ValueError("sleep_mode: an engine with kv_transfer.connector cannot sleep: others fetch KV from it")
        return self

    @field_validator("request_options")
    @classmethod
    def _refuse_reserved(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if taken := RESERVED.intersection(value):
            raise ValueError(f"{', '.join(sorted(taken))}: the executor itself uses this name")
        return value

    @field_validator("engine_args")
    @classmethod
    def _refuse_owned(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in OWNED_ENGINE_ARGS:
                raise ValueError(f"'{name}' has a setting of its own: use {OWNED_ENGINE_ARGS[name]}")
            if name in FIXED_ENGINE_ARGS:
                raise ValueError(f"'{name}' is set by the executor ({FIXED_ENGINE_ARGS[name]})")
        return value
