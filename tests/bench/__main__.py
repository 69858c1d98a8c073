"""``python -m tests.bench``: every benchmark, one table; ``python -m tests.bench policies`` is a command of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from executor_svc.engine.tiny_model import make_tiny_model
from tests.bench import (
    burst,
    executor_cost,
    hold,
    idle_fleet,
    ingest,
    journal,
    latency,
    memory,
    overload,
    relay,
    request_cost,
    sdk,
    submits,
    telemetry_cost,
    throughput,
)
from tests.bench.core import bench_core
from tests.bench.engines import simulated, tiny_vllm
from tests.bench.policies import __main__ as policies
from tests.bench.report import Row
from tests.bench.session import run

TINY_MODEL = Path(".cache/tiny-model")
NAMES = (
    *("core", "latency", "relay", "ingest", "sdk", "requests", "burst", "idle", "hold", "throughput", "overload"),
    *("memory", "journal", "submits", "telemetry", "vllm", "telemetry-vllm", "executor-vllm", "gateway"),
)
REAL = {"vllm", "telemetry-vllm", "executor-vllm", "gateway"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    latency_turns: int  # per round
    relay_rounds: int
    relay_tokens: int  # per stream and round, also of ``ingest``
    requests: int  # per round of ``request_cost``
    idle_s: float  # per round
    throughput_tokens: int  # the same
    overload_s: float
    journal_s: float  # per round
    telemetry_rounds: int  # more: the figure that matters is a bound, and pairs narrow it
    vllm_rounds: int  # more: a real engine's figures spread, and getting it up takes longer than its rounds


FULL = Size(
    rounds=5,
    latency_turns=40,
    relay_rounds=3,
    relay_tokens=300,
    requests=2_000,
    idle_s=5.0,
    throughput_tokens=192,
    overload_s=30.0,
    journal_s=5.0,
    telemetry_rounds=24,
    vllm_rounds=9,
)
QUICK = Size(
    rounds=3,
    latency_turns=20,
    relay_rounds=1,
    relay_tokens=150,
    requests=1_000,
    idle_s=2.0,
    throughput_tokens=64,
    overload_s=5.0,
    journal_s=1.0,
    telemetry_rounds=4,
    vllm_rounds=5,
)
NOT_QUICK = ("core", "idle", "hold", "memory", "telemetry", *sorted(REAL))
"""Those that take a minute or more, most of it spent on getting ready."""

Benchmark = Callable[[Size], Awaitable[list[Row]]]


async def _scheduler(size: Size) -> list[Row]:
    return bench_core.measure(quick=size is QUICK)  # no process and no loop but this one: it may hold it


async def _latency(size: Size) -> list[Row]:
    return await latency.measure(rounds=size.rounds, turns=size.latency_turns)


async def _relay(size: Size) -> list[Row]:
    rows = []
    for streams in (32, 256):
        rows += await relay.measure(rounds=size.relay_rounds, streams=streams, max_tokens=size.relay_tokens)
    return rows


async def _sdk(size: Size) -> list[Row]:
    rows = []
    for streams in (32, 256):
        rows += await sdk.measure(rounds=size.relay_rounds, streams=streams, max_tokens=size.relay_tokens)
    return rows


async def _ingest(size: Size) -> list[Row]:
    return await ingest.measure(rounds=size.relay_rounds, max_tokens=size.relay_tokens)


async def _requests(size: Size) -> list[Row]:
    return await request_cost.measure(rounds=size.relay_rounds, requests=size.requests)


async def _burst(size: Size) -> list[Row]:
    rows = await burst.measure(rounds=size.rounds, streams=512)
    return rows + await burst.measure(rounds=size.rounds, streams=512, over_session=False)


async def _idle(size: Size) -> list[Row]:
    return await idle_fleet.measure(rounds=size.relay_rounds, seconds=size.idle_s, requests=size.requests)


async def _hold(size: Size) -> list[Row]:
    return await hold.measure(rounds=size.rounds)


async def _throughput(size: Size) -> list[Row]:
    engine = simulated(step_s=0.015, streams=throughput.STREAMS)  # about the rate of the tiny model on one scheduler
    return await throughput.measure(engine, "simulated engine", rounds=size.rounds, max_tokens=size.throughput_tokens)


async def _overload(size: Size) -> list[Row]:
    return await overload.measure(seconds=size.overload_s)


async def _memory(size: Size) -> list[Row]:
    return await memory.measure(scale=0.5 if size is QUICK else 1.0)


async def _journal(size: Size) -> list[Row]:
    pairs = size.telemetry_rounds
    return await journal.measure(rounds=size.relay_rounds, seconds=size.journal_s, pairs=pairs, requests=size.requests)


async def _submits(size: Size) -> list[Row]:
    return await submits.measure(rounds=size.relay_rounds, requests=size.requests)


async def _telemetry(size: Size) -> list[Row]:
    engine = simulated(step_s=0.002, streams=telemetry_cost.STREAMS)  # so fast that the services are the limit
    measure = partial(telemetry_cost.measure, engine)
    rounds = size.telemetry_rounds
    rows = await measure("every request traced", rounds=rounds, max_tokens=96)  # an answer as people get it
    # As many requests as there can be: they differ less from turn to turn.
    rows += await measure("every request traced", rounds=rounds // 2, max_tokens=4)
    rows += await measure("1 of 10 traced", rounds=rounds // 2, max_tokens=4, sampling_ratio=0.1)
    return rows


async def _telemetry_vllm(size: Size) -> list[Row]:
    make_tiny_model(TINY_MODEL)
    engine = tiny_vllm(TINY_MODEL, streams=telemetry_cost.STREAMS)
    return await telemetry_cost.measure(engine, "vLLM, CPU", rounds=size.telemetry_rounds, max_tokens=96)


async def _vllm(size: Size) -> list[Row]:
    make_tiny_model(TINY_MODEL)
    engine = tiny_vllm(TINY_MODEL, streams=throughput.STREAMS)
    return await throughput.measure(
        engine, "vLLM, CPU", rounds=size.vllm_rounds, max_tokens=size.throughput_tokens, target=">= 0.95"
    )


async def _executor_vllm(size: Size) -> list[Row]:
    make_tiny_model(TINY_MODEL)
    rows = []
    for streams in (128, 256):
        engine = tiny_vllm(TINY_MODEL, streams=streams)
        rows += await executor_cost.measure(engine, rounds=size.rounds, streams=streams, max_tokens=96)
    return rows


async def _gateway(size: Size) -> list[Row]:
    # They need vLLM, the other benchmarks do not.
    from tests.bench.gateway import engines as gateway_engines
    from tests.bench.gateway import fronts as gateway_fronts

    make_tiny_model(TINY_MODEL)
    rows = await gateway_fronts.measure(rounds=size.relay_rounds, tokens=128)
    engine = tiny_vllm(TINY_MODEL, streams=gateway_engines.STREAMS)
    setup = gateway_engines.on_the_cpu(engine, size.throughput_tokens)
    return rows + await gateway_engines.measure(setup, rounds=size.rounds)


BENCHMARKS: dict[str, Benchmark] = dict(
    zip(
        NAMES,
        (
            *(_scheduler, _latency, _relay, _ingest, _sdk, _requests, _burst, _idle, _hold, _throughput, _overload),
            *(_memory, _journal, _submits, _telemetry, _vllm, _telemetry_vllm, _executor_vllm, _gateway),
        ),
        strict=True,
    )
)


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    if sys.argv[1:2] == ["policies"]:
        return policies.main(sys.argv[2:])
    options = _parser().parse_args()
    names = options.only or [name for name in NAMES if not (options.quick and name in NOT_QUICK)]
    if not REAL.isdisjoint(names) and find_spec("vllm") is None:
        print("vLLM is not installed (make setup-vllm): its benchmarks are left out", file=sys.stderr)
        names = [name for name in names if name not in REAL]
    size = QUICK if options.quick else FULL
    return run({name: partial(BENCHMARKS[name], size) for name in names}, names, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--only", action="append", choices=NAMES, help="this benchmark; may be given again")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"fewer and shorter rounds, and no {' or '.join(NOT_QUICK)} unless asked for: under a minute",
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
