"""``python -m tests.bench.gateway``: the OpenAI gateway beside vLLM's own server.  Needs vLLM."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from executor_svc.engine.tiny_model import make_tiny_model
from tests.bench.engines import tiny_vllm, wide_vllm
from tests.bench.gateway import engines, fronts
from tests.bench.pd.wide_model import make
from tests.bench.session import Benchmark, run

TINY_MODEL = Path(".cache/tiny-model")
WIDE_MODEL = Path(".cache/wide-model")
FRONTS, ENGINES = "fronts", "engines"
GPU_SHARE = 0.4  # two engines at a time


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    options = _parser().parse_args()
    measured: dict[str, Benchmark] = {
        FRONTS: partial(fronts.measure, rounds=options.rounds, tokens=options.tokens),
        ENGINES: partial(engines.measure, _setup(options), rounds=options.rounds),
    }
    only = ENGINES if options.gpu else options.only
    return run(measured, [only] if only else list(measured), as_json=options.json)


def _setup(options: argparse.Namespace) -> engines.Setup:
    if not options.gpu:
        make_tiny_model(TINY_MODEL)
        return engines.on_the_cpu(tiny_vllm(TINY_MODEL, streams=engines.STREAMS), options.tokens)
    make(WIDE_MODEL)
    engine = wide_vllm(WIDE_MODEL, streams=max(options.streams), gpu_share=GPU_SHARE)
    return engines.on_a_gpu(engine, options.streams, options.tokens, options.workers, options.within_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway")
    parser.add_argument("--only", choices=(FRONTS, ENGINES), help="without engines, or with them (default: both)")
    parser.add_argument("--gpu", action="store_true", help="engines of a model of 1.4 B on one GPU, nothing else")
    parser.add_argument("--tokens", type=int, default=128, help="output tokens of a request (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each arm (default: %(default)s)")
    parser.add_argument("--streams", type=int, nargs="+", default=[32, 256], help="--gpu: at once (default: 32 256)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4], help="--gpu: of gateways (default: 1 4)")
    parser.add_argument("--within-s", type=float, default=240.0, help="--gpu: no round begins later (default: 240)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
