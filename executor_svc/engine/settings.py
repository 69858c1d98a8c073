"""What an operator configures about an engine.  Unknown keys are errors; every field says its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.vllm.kv_connectors import connector_named


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSettings(_Settings):
    """Which model, and where its files are kept."""

    model: str = Field(
        min_length=1,
        description="Hub id ('org/name') or path of a local directory.  A simulated engine takes any name.",
    )
    served_name: str | None = Field(
        default=None, min_length=1, description="Name that clients ask for.  Default: `model` as given."
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="Branch, tag or commit of a hub model; only a commit stays the same.  Not for local paths.",
    )
    cache_dir: Path | None = Field(
        default=None, description="Directory to keep downloads in.  Default: the hub library's own cache."
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="Hub id or path of another tokenizer.  Default: the model's own.",
    )
    tokenizer_revision: str | None = Field(
        default=None, min_length=1, description="Branch, tag or commit of a hub tokenizer."
    )
    chat_template: Path | None = Field(
        default=None, description="File with a Jinja chat template used instead of the model's own."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that ships with the model.  Only for models you trust."
    )

    @property
    def name(self) -> str:
        """The name clients ask for."""
        return self.served_name or self.model


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
}
"""vLLM engine arguments that have a field of their own, and that field."""

FIXED_ENGINE_ARGS: dict[str, str] = {
    "scheduling_policy": "priority: a request's class must reach the engine",
    "skip_tokenizer_init": "off: the scheduler tokenizes with this engine's tokenizer",
    "disable_log_stats": "off: heartbeats and progress are made of the statistics",
    "enable_logging_iteration_details": "on: progress and prediction are made of iteration details",
    "worker_extension_cls": "ours: the engine's processes must not outlive the executor",
    "stream_interval": "1: every step's tokens go out at once",
}
"""vLLM engine arguments the executor sets itself, and why."""


class KvTransferSettings(_Settings):
    """How the KV of a prompt gets from one engine to another.  Off without a connector."""

    connector: str = Field(
        default="",
        description="vLLM's name of the KV connector: NixlConnector.  Engines with the same connector can hand KV "
        "over to each other.  Default: none, the engine hands nothing over.",
    )
    side_channel_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address of this machine that other engines fetch KV from.  The traffic is neither encrypted nor "
        "authenticated: use loopback, or an address in a private network.",
    )
    side_channel_port: int = Field(
        default=0, ge=0, le=65_535, description="Port that other engines fetch KV from; 0 picks a free port."
    )
    lease_s: float = Field(
        default=30.0,
        gt=0.0,
        le=3_600.0,
        description="Seconds that a prompt's KV is kept for another engine to fetch.",
    )
    load_failure_policy: Literal["recompute", "fail"] = Field(
        default="recompute",
        description="What to do when a prompt's KV cannot be fetched: compute it here, or fail the request.",
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="Further options of the connector, under its own names."
    )

    @field_validator("connector")
    @classmethod
    def _known(cls, value: str) -> str:
        if value:
            connector_named(value)
        return value

    @field_validator("side_channel_host")
    @classmethod
    def _one_address(cls, value: str) -> str:
        if value in ("0.0.0.0", "::", "*"):
            raise ValueError(f"{value!r} is no address that another engine could be told")
        return value


class VllmSettings(_Settings):
    """A vLLM engine.  What has no field here goes through ``engine_args`` under vLLM's own name."""

    dtype: str = Field(
        default="auto", description="Data type of weights and activations: auto, bfloat16, float16, float32."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="Number of GPUs that each layer is split over.")
    pipeline_parallel_size: int = Field(
        default=1, ge=1, description="Number of groups of GPUs that the layers are split over."
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
        default=None, description="Reuse the KV of earlier prompts that begin alike.  Default: vLLM's own."
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
    traces_endpoint: str | None = Field(
        default=None,
        description="OTLP endpoint for the engine's own spans.  Default: telemetry.otlp_endpoint.",
    )
    kv_transfer: KvTransferSettings = Field(
        default_factory=KvTransferSettings, description="How the KV of a prompt is handed over between engines."
    )
    start_timeout_s: float = Field(
        default=1800.0,
        gt=0.0,
        description="Seconds the engine may take to load and warm up; then the executor ends.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further vLLM engine arguments by their Python names (max_logprobs, ...).",
    )

    @field_validator("engine_args")
    @classmethod
    def _refuse_owned(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in OWNED_ENGINE_ARGS:
                raise ValueError(f"'{name}' has a setting of its own: use {OWNED_ENGINE_ARGS[name]}")
            if name in FIXED_ENGINE_ARGS:
                raise ValueError(f"'{name}' is set by the executor ({FIXED_ENGINE_ARGS[name]})")
        return value


class FaultSettings(_Settings):
    """A fault the simulated engine has from its start."""

    kind: Literal["none", "die", "hang", "slow", "error", "kv_connect", "kv_slow", "kv_corrupt"] = Field(
        default="none", description="Kind of fault."
    )
    after_tokens: int = Field(default=0, ge=0, description="Tokens generated before the fault begins.")
    factor: float = Field(
        default=10.0, gt=0.0, description="slow, kv_slow: how many times longer a step or pull takes."
    )
    times: int = Field(default=1, ge=1, description="error, kv_connect, kv_corrupt: number of requests that fail.")

    def fault(self) -> Fault | None:
        if self.kind == "none":
            return None
        return Fault(kind=FaultKind(self.kind), after_tokens=self.after_tokens, factor=self.factor, times=self.times)


class SimulatedKvTransferSettings(KvTransferSettings):
    """A modelled transfer: it takes ``handshake_s`` once per peer, then ``pull_base_s + tokens * bytes_per_token /
    bandwidth_bytes_per_s``.
    """

    handshake_s: float = Field(
        default=0.5, ge=0.0, description="Seconds that the first contact with another engine takes."
    )
    pull_base_s: float = Field(
        default=0.025, ge=0.0, description="Seconds that every pull takes, however short the prompt."
    )
    bytes_per_token: int = Field(default=114_688, ge=1, description="Bytes of KV per token.")
    bandwidth_bytes_per_s: float = Field(default=10e9, gt=0.0, description="Bytes per second of each pull.")


class SimulatedSettings(_Settings):
    """A simulated engine: real batching and KV bookkeeping, made-up tokens, modelled time.

    One step takes ``step_base_s + step_per_sequence_s * decoding sequences + prefill tokens /
    prefill_tokens_per_s``.
    """

    prefill_tokens_per_s: float = Field(default=20_000.0, gt=0.0, description="Prompt tokens computed per second.")
    step_base_s: float = Field(
        default=0.005, ge=0.0, description="Seconds that every step takes, whatever it computes."
    )
    step_per_sequence_s: float = Field(
        default=0.0002, ge=0.0, description="Seconds that each decoding sequence adds to a step."
    )
    kv_capacity_tokens: int = Field(default=65_536, ge=16, description="Size of the KV cache in tokens.")
    kv_block_size: int = Field(default=16, ge=1, description="Tokens of one KV block.")
    max_running: int = Field(default=64, ge=1, description="Most sequences that run at once.")
    max_waiting: int = Field(
        default=10_000, ge=1, description="Most requests that may wait in the engine; further ones are refused."
    )
    max_batched_tokens: int = Field(
        default=2_048, ge=1, description="Most tokens computed in one step; longer prompts take several."
    )
    max_model_len: int = Field(default=8_192, ge=2, description="Most tokens of a prompt and its output together.")
    vocab_size: int = Field(default=2_048, ge=512, le=32_768, description="Number of token ids.")
    mean_output_tokens: int = Field(
        default=256, ge=2, description="Mean length in tokens of outputs that no limit cuts short."
    )
    max_logprobs: int = Field(default=20, ge=0, description="Most top logprobs a request may ask for.")
    load_s: float = Field(
        default=0.0, ge=0.0, description="Seconds that the start takes, in place of download, load and warm-up."
    )
    adapters: tuple[str, ...] = Field(default=(), description="Names of LoRA adapters that requests may ask for.")
    kv_transfer: SimulatedKvTransferSettings = Field(
        default_factory=SimulatedKvTransferSettings,
        description="How the KV of a prompt is handed over between simulated engines.",
    )
    fault: FaultSettings = Field(
        default_factory=FaultSettings, description="A fault that the engine has from its start."
    )

    @model_validator(mode="after")
    def _one_request_must_fit(self) -> Self:
        whole_blocks = self.kv_capacity_tokens // self.kv_block_size * self.kv_block_size
        if whole_blocks < self.max_model_len:
            raise ValueError(
                f"kv_capacity_tokens ({self.kv_capacity_tokens}, {whole_blocks} in whole blocks) must hold "
                f"one request of max_model_len ({self.max_model_len}) tokens"
            )
        if self.max_batched_tokens < self.max_running:
            raise ValueError(
                f"max_batched_tokens ({self.max_batched_tokens}) must be at least max_running "
                f"({self.max_running}): each running sequence decodes one token per step"
            )
        return self


class EngineSettings(_Settings):
    """The engine of one executor."""

    kind: Literal["vllm", "simulated"] = Field(default="vllm", description="Engine to run.")
    model: ModelSettings = Field(description="The model to serve.")
    vllm: VllmSettings = Field(
        default_factory=VllmSettings, description="Settings of the vLLM engine, used when engine.kind is vllm."
    )
    simulated: SimulatedSettings = Field(
        default_factory=SimulatedSettings,
        description="Settings of the simulated engine, used when engine.kind is simulated.",
    )
