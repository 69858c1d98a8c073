"""What executors report of engines that start or run arrives in control.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

import math

import pytest

from sage.controlplane.v1 import executor_pb2
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.transport import engine_reports
from scheduler_svc.transport.errors import WireError
from tests.unit.transport.completeness import at_default, unset
from tests.unit.transport.filled_values import LOAD


def test_a_heartbeat() -> None:
    wire = executor_pb2.Heartbeat(
        number=5,
        last_assign=4,
        running=3,
        waiting=2,
        unfinished=6,
        kv_used_tokens=1000,
        prefix_queries_tokens=10,
        prefix_hits_tokens=8,
        iterations=77,
        known_wait="compiles a grammar",
        prompt_tokens_per_s=1.5,
        generation_tokens_per_s=2.5,
        gpu_memory_used_bytes=99,
        kv_pulls=21,
        kv_pulls_failed=22,
        kv_leases_expired=23,
        recent_iterations=[
            executor_pb2.Iteration(
                index=1, prefill_tokens=11, decode_tokens=12, running=13, kv_used_tokens=14, elapsed_s=0.5
            )
        ],
    )
    assert engine_reports.load_report(wire) == LOAD
    assert at_default(LOAD) == set()


def test_a_heartbeat_brings_a_bounded_number_of_iterations() -> None:
    wire = executor_pb2.Heartbeat(recent_iterations=[executor_pb2.Iteration(elapsed_s=0.01)] * 10_000)
    assert len(engine_reports.load_report(wire).samples) == engine_reports.SAMPLES_LIMIT


def test_what_an_engine_says_of_its_prefix_cache() -> None:
    wire = executor_pb2.PrefixCacheReport(number=3, block_tokens=64, reset=True, removed=[5], stored=[2**64 - 1, 7])
    assert unset(wire) == set()

    report = engine_reports.cache_report(wire)

    assert report == CacheReport(block_tokens=64, cleared=True, removed=(5,), stored=(2**64 - 1, 7))
    assert at_default(report) == set()


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (executor_pb2.PrefixCacheReport(stored=[1]), "block_tokens"),
        (executor_pb2.PrefixCacheReport(block_tokens=64, stored=[1] * 65_537), "65537 hashes"),
    ],
)
def test_a_report_of_a_prefix_cache_that_makes_no_sense_is_refused(
    wire: executor_pb2.PrefixCacheReport, words: str
) -> None:
    with pytest.raises(WireError, match=words):
        engine_reports.cache_report(wire)


@pytest.mark.parametrize(
    ("said", "taken"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (None, None), (-0.1, None), (1.1, None), (math.nan, None)]
)
def test_the_progress_of_a_start_is_a_share_or_not_known(said: float | None, taken: float | None) -> None:
    assert engine_reports.progress(executor_pb2.EngineStatus(progress=said)) == taken


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 3_601.0])
def test_figures_that_no_engine_can_have_are_not_learned(odd: float) -> None:
    good = executor_pb2.Iteration(prefill_tokens=1, elapsed_s=0.5)
    wire = executor_pb2.Heartbeat(recent_iterations=[executor_pb2.Iteration(elapsed_s=odd), good])
    wire.prompt_tokens_per_s = wire.generation_tokens_per_s = odd if odd not in (0.0, 3_601.0) else math.nan
    load = engine_reports.load_report(wire)
    assert [sample.elapsed_s for sample in load.samples] == [0.5]
    assert (load.prompt_tokens_per_s, load.generation_tokens_per_s) == (0.0, 0.0)


def test_no_engine_holds_more_tokens_than_memory() -> None:
    most = executor_pb2.Iteration(kv_used_tokens=2**64 - 1, elapsed_s=0.5)
    load = engine_reports.load_report(executor_pb2.Heartbeat(kv_used_tokens=2**64 - 1, recent_iterations=[most]))
    assert (load.kv_used_tokens, load.samples) == (engine_reports.MOST_TOKENS, ())
