"""An instance: one executor and its engine, as the scheduler knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class InstanceRole(Enum):
    GENERAL = "general"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    HYBRID = "hybrid"
    EMBEDDING = "embedding"  # no generation


class InstanceState(Enum):
    """See ``registry.TRANSITIONS`` for what may follow what."""

    DOWNLOADING = "downloading"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    SUSPECT = "suspect"  # a stream broke or a lease is late: no new work
    STALLED = "stalled"  # holds work and makes no progress
    DRAINING = "draining"
    DRAINED = "drained"
    LOST = "lost"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallelism:
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    gpu_count: int = 0  # 0 on a CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    host: str = ""
    rack: str = ""
    zone: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceSpec:
    """What an executor registers, before its engine is up."""

    instance_id: str
    model: str
    role: InstanceRole = InstanceRole.GENERAL
    engine_start_id: str = ""  # new with every engine start
    price_per_hour: float = 0.0
    location: Location = Location()
    labels: Mapping[str, str] = field(default_factory=dict)
    software_version: str = ""
    address: str = ""  # host:port of its own services


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """What its engine is, known once it is READY."""

    engine: str
    engine_version: str
    revision: str = ""
    dtype: str = ""
    vocab_size: int  # token ids are in [0, vocab_size)
    max_model_len: int  # tokens, prompt + output
    kv_capacity_tokens: int
    kv_block_size: int = 16  # tokens
    max_running: int  # sequences at once
    max_batched_tokens: int  # tokens of one iteration: the prefill chunk
    parallelism: Parallelism = Parallelism()
    gpu_name: str = ""
    gpu_memory_bytes: int = 0
    adapters: frozenset[str] = frozenset()
    supports_priority: bool = False
    structured_output_kinds: frozenset[str] = frozenset()
    kv_connector: str = ""
    compatibility_key: str = ""
    tokenizer_hash: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class IterationSample:
    """One engine iteration that scheduled tokens."""

    prefill_tokens: int
    decode_tokens: int
    running: int
    kv_used_tokens: int
    elapsed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """A heartbeat's content."""

    number: int
    last_assign: int  # number of the last Assign in these figures
    running: int
    waiting: int
    unfinished: int  # requests the engine holds
    kv_used_tokens: int
    iterations: int  # since the engine's start: progress
    prefix_queries_tokens: int = 0
    prefix_hits_tokens: int = 0
    prompt_tokens_per_s: float = 0.0
    generation_tokens_per_s: float = 0.0
    gpu_memory_used_bytes: int = 0
    known_wait: str = ""  # why no progress is expected now
    kv_pulls: int = 0  # prompts whose KV was fetched from another engine, since the engine's start
    kv_pulls_failed: int = 0  # that could not be fetched
    kv_leases_expired: int = 0  # prompts whose KV was kept for another engine and not fetched in time
    samples: tuple[IterationSample, ...] = ()
