"""``python -m tests.bench.real_engines``: every policy on two real engines, beside ``fifo``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

from tests.bench.child import ChildFailed
from tests.bench.engines import Engine, with_engine_args
from tests.bench.pd.platform import cpu
from tests.bench.policies.traffic import TARGETS, find_traffic
from tests.bench.real_engines import run_file
from tests.bench.real_engines.class_table import class_table
from tests.bench.real_engines.gpu_engines import gpu_engines
from tests.bench.real_engines.policy_rounds import POLICIES, Plan, policy_rounds
from tests.bench.real_engines.tables import policy_table

CHUNK = 512  # tokens of one iteration
SLOTS = 64
KV_BYTES = 512 << 20  # 128 k tokens of the tiny model: slots run out first
GPU_TPOT_SCALE = 22 / 33  # of the targets: 22 ms, and 2 s for the first token
RUNS, RECORDING = "runs.jsonl", "recording-{}.jsonl"


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    options = _parser().parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runs = options.out / RUNS
    if options.turns:
        try:
            engines = gpu_engines(options.engines) if options.gpus else _engines(options.engines)
            engines = [with_engine_args(each, options.engine_args) for each in engines]
            asyncio.run(policy_rounds(engines, _plan(options), lambda run: run_file.add(runs, run)))
        except (ChildFailed, FileNotFoundError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    found = run_file.read(runs)
    print(policy_table(found))
    print()
    print(class_table(found))
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    number = 1 + sum(1 for _ in options.out.glob(RECORDING.format("*")))
    traffic = find_traffic("azure_conv", options.traces)
    return Plan(
        traffic=replace(traffic, tpot_scale=GPU_TPOT_SCALE) if options.gpus else traffic,
        targets=options.targets,
        loads=options.load or [0.5, 0.9],
        policies=options.policy or POLICIES,
        turns=options.turns,
        run_s=options.run_s,
        recording=options.out / RECORDING.format(number),
        lock=options.lock,
    )


def _engines(count: int) -> list[Engine]:
    platform = cpu()
    return [platform.engine(place, chunk=CHUNK, slots=SLOTS, kv_bytes=KV_BYTES) for place in range(count)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.real_engines")
    parser.add_argument("--traces", type=Path, help="directory of azure_llm_2023_conv.csv")
    parser.add_argument(
        "--turns", type=int, default=5, help="each runs every policy at every load; 0: show what is there"
    )
    parser.add_argument("--run-s", type=float, default=15.0, help="seconds of arrivals of each run")
    parser.add_argument(
        "--load", type=float, action="append", help="share of the measured capacity; may be given again"
    )
    parser.add_argument("--engines", type=int, choices=(1, 2), default=2, help="1: for the predictor, undisturbed")
    parser.add_argument("--gpus", action="store_true", help="engines of 6.2 B instead, a GPU each")
    parser.add_argument("--targets", choices=sorted(TARGETS), default="mixed", help="of five classes (default: mixed)")
    parser.add_argument("--engine-args", type=json.loads, default={}, help="further arguments of vLLM's, as JSON")
    parser.add_argument("--policy", action="append", help="instead of the built-in ones; may be given again")
    parser.add_argument(
        "--out", type=Path, default=Path(".cache/real-engines"), help="directory that runs are added to"
    )
    parser.add_argument("--lock", type=Path, help="file whose lock is held during a turn, as flock(1) does")
    return parser


if __name__ == "__main__":
    sys.exit(main())
