"""What an engine does now, for heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Iteration:
    """One engine iteration that scheduled tokens, or the mean of some consecutive ones."""

    index: int  # counts iterations with scheduled tokens, from 1; of several, the last; 0 in facts
    prefill_tokens: int
    decode_tokens: int
    running: int  # sequences
    kv_used_tokens: int
    elapsed_s: float
    steps: int = 1  # that it is the mean of


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLoad:
    """A snapshot for the heartbeat.

    Counters count from when the engine was ready: neither its warm-up nor the measuring of its speed counts.
    """

    running: int
    waiting: int
    unfinished: int  # requests that the engine has and that have not ended: runnable work
    kv_used_tokens: int
    prefix_queries_tokens: int
    prefix_hits_tokens: int
    prompt_tokens_total: int  # of requests, cached ones included
    generation_tokens_total: int
    iterations: int  # iterations with scheduled tokens so far: progress
    known_wait: str | None = None  # why the engine makes no progress now (grammar compile, KV pull), else None
    gpu_memory_used_bytes: int | None = None
    kv_pulls: int = 0  # prompts whose KV was fetched from another engine
    kv_pulls_failed: int = 0  # prompts whose KV could not be fetched
    kv_leases_expired: int = 0  # prompts whose KV was kept for another engine and not fetched in time
    submissions: Mapping[str, int] = field(default_factory=dict)  # calls of ``submit``: taken ("steps"), or why refused
