"""What executors report of engines that start or run, checked and converted."""

from __future__ import annotations

from collections.abc import Iterable

from sage.controlplane.v1 import executor_pb2
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.transport.clipping import reported
from scheduler_svc.transport.executor_fields import refused

SAMPLES_LIMIT = 256  # iterations kept of one heartbeat
HASHES_LIMIT = 65_536  # of prefixes, in one report
LONGEST_ITERATION_S = 3_600.0
MOST_TOKENS = 2**40  # in a KV cache, and per second


def progress(wire: executor_pb2.EngineStatus) -> float | None:
    """Return how far the start of an engine is, in [0, 1]; None if it does not say, or says something else."""
    return wire.progress if wire.HasField("progress") and 0 <= wire.progress <= 1 else None


def load_report(wire: executor_pb2.Heartbeat) -> LoadReport:
    """Convert a heartbeat; at most SAMPLES_LIMIT of its iterations are kept.

    Figures that no engine can have are left out: the scheduler learns from the others, and would never forget one that
    is infinite.
    """
    return LoadReport(
        number=wire.number,
        last_assign=wire.last_assign,
        running=wire.running,
        waiting=wire.waiting,
        unfinished=wire.unfinished,
        kv_used_tokens=min(wire.kv_used_tokens, MOST_TOKENS),
        iterations=wire.iterations,
        prefix_queries_tokens=wire.prefix_queries_tokens,
        prefix_hits_tokens=wire.prefix_hits_tokens,
        prompt_tokens_per_s=_rate(wire.prompt_tokens_per_s),
        generation_tokens_per_s=_rate(wire.generation_tokens_per_s),
        gpu_memory_used_bytes=wire.gpu_memory_used_bytes,
        known_wait=reported(wire.known_wait),
        kv_pulls=wire.kv_pulls,
        kv_pulls_failed=wire.kv_pulls_failed,
        kv_leases_expired=wire.kv_leases_expired,
        samples=samples(wire.recent_iterations[:SAMPLES_LIMIT]),
    )


def samples(wire: Iterable[executor_pb2.Iteration]) -> tuple[IterationSample, ...]:
    """Convert iterations; those with figures that no engine can have are left out."""
    return tuple(
        IterationSample(
            prefill_tokens=i.prefill_tokens,
            decode_tokens=i.decode_tokens,
            running=i.running,
            kv_used_tokens=i.kv_used_tokens,
            elapsed_s=i.elapsed_s,
        )
        for i in wire
        if 0 < i.elapsed_s <= LONGEST_ITERATION_S and i.kv_used_tokens <= MOST_TOKENS
    )


def cache_report(wire: executor_pb2.PrefixCacheReport) -> CacheReport:
    """Convert what an engine says of its prefix cache.  Raises WireError for too many hashes, or no block size."""
    count = len(wire.removed) + len(wire.stored)
    if count > HASHES_LIMIT:
        raise refused("prefix_cache_report", f"{count} hashes; at most {HASHES_LIMIT}")
    if wire.block_tokens <= 0:
        raise refused("prefix_cache_report.block_tokens", "must be positive")
    return CacheReport(
        block_tokens=wire.block_tokens, cleared=wire.reset, removed=tuple(wire.removed), stored=tuple(wire.stored)
    )


def _rate(per_s: float) -> float:
    """Return a rate, or 0 for one that no engine can have (every comparison with NaN is false)."""
    return per_s if 0 <= per_s <= MOST_TOKENS else 0.0
