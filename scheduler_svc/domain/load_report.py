"""What an executor's heartbeat reports about its engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class IterationSample:
    """One engine iteration that scheduled tokens."""

    prefill_tokens: int
    decode_tokens: int
    running: int  # sequences
    kv_used_tokens: int
    elapsed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """The content of one heartbeat."""

    number: int  # counts the heartbeats of a session
    last_assign: int  # number of the last Assign that these figures include
    running: int  # sequences
    waiting: int  # sequences in the engine's own queue
    unfinished: int  # requests the engine holds
    kv_used_tokens: int
    iterations: int  # since the engine was ready: progress
    prefix_queries_tokens: int = 0  # prompt tokens looked up in the prefix cache, since the engine was ready
    prefix_hits_tokens: int = 0  # of those, found there
    prompt_tokens_per_s: float = 0.0
    generation_tokens_per_s: float = 0.0
    gpu_memory_used_bytes: int = 0
    known_wait: str = ""  # why no progress is expected now
    kv_pulls: int = 0  # prompts whose KV was fetched from another engine, since the engine's start
    kv_pulls_failed: int = 0  # prompts whose KV could not be fetched, since the engine's start
    kv_leases_expired: int = 0  # prompts whose KV was kept for another engine and not fetched in time
    samples: tuple[IterationSample, ...] = ()
