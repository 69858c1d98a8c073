"""``python -m tests.bench.pd``: prefill/decode separation, on the CPU or on one GPU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.pd import handoff, identical, interference
from tests.bench.pd.mixture import Mixture
from tests.bench.pd.platform import cpu, gpu
from tests.bench.pd.wide_model import make
from tests.bench.session import Benchmark, run

WIDE_MODEL = Path(".cache/wide-model")
NAMES = ("identical", "handoff", "interference")


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    options = _parser().parse_args()
    if options.gpu:
        make(WIDE_MODEL)
    platform = gpu(WIDE_MODEL, options.kv_block_size) if options.gpu else cpu(options.kv_block_size)
    mixture = Mixture(shorts_per_long=options.shorts_per_long)
    benchmarks: dict[str, Benchmark] = {
        "identical": lambda: identical.measure(platform),
        "handoff": lambda: handoff.measure(platform, rounds=options.rounds, turns=options.turns),
        "interference": lambda: interference.measure(platform, mixture, rounds=options.rounds, run_s=options.run_s),
    }
    return run(benchmarks, options.only or list(NAMES), as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pd")
    parser.add_argument("--only", action="append", choices=NAMES, help="this benchmark; may be given again")
    parser.add_argument("--gpu", action="store_true", help="two engines on one GPU, with a model of 1.4 B")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=8, help="handoff: requests per round, arm and length")
    parser.add_argument("--run-s", type=float, default=12.0, help="interference: seconds of arrivals per run")
    parser.add_argument("--shorts-per-long", type=int, default=3, help="interference: short requests for each long one")
    parser.add_argument("--kv-block-size", type=int, help="tokens of a KV block (default: vLLM's own)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
