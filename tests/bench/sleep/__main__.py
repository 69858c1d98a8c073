"""``python -m tests.bench.sleep``: two models that share one device, by sleeping."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.pd.wide_model import make
from tests.bench.session import Benchmark, run
from tests.bench.sleep import exchange, turns
from tests.bench.sleep.shared_engines import gpu, simulated

WIDE_MODEL = Path(".cache/wide-model")
NAMES = ("exchange", "turns")


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    options = _parser().parse_args()
    if options.gpu:
        make(WIDE_MODEL)
    engine = gpu(WIDE_MODEL) if options.gpu else simulated()
    case = "vLLM, 1 GPU" if options.gpu else "simulated"
    benchmarks: dict[str, Benchmark] = {
        "exchange": lambda: exchange.measure(engine, case, rounds=options.rounds),
        "turns": lambda: turns.measure(engine, case, run_s=options.run_s),
    }
    return run(benchmarks, options.only or list(NAMES), as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sleep")
    parser.add_argument("--only", action="append", choices=NAMES, help="this benchmark; may be given again")
    parser.add_argument("--gpu", action="store_true", help="two engines on one GPU, with a model of 1.4 B")
    parser.add_argument("--rounds", type=int, default=5, help="exchange: sleeps and wakes (default: %(default)s)")
    parser.add_argument("--run-s", type=float, default=60.0, help="turns: seconds of arrivals (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
