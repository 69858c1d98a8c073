"""``python -m tests.bench.pipe``: what the way of a token costs on real vLLM, on the CPU or on one GPU."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from executor_svc.engine.tiny_model import make_tiny_model
from tests.bench.engines import tiny_vllm, wide_vllm
from tests.bench.pd.wide_model import make
from tests.bench.pipe import through
from tests.bench.session import run

TINY_MODEL = Path(".cache/tiny-model")
WIDE_MODEL = Path(".cache/wide-model")
GPU_SHARE = 0.3  # three engines at a time


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    options = _parser().parse_args()
    if options.turns > 1 and options.server:
        raise SystemExit("--server runs each stream's request once: leave --turns out")
    most = max(options.streams)
    if options.gpu:
        make(WIDE_MODEL)
        engine, case = wide_vllm(WIDE_MODEL, streams=most, gpu_share=GPU_SHARE), "vLLM, 1 GPU"
    else:
        make_tiny_model(TINY_MODEL)
        engine, case = replace(tiny_vllm(TINY_MODEL, streams=most), bound_to=options.engine_core), "vLLM, CPU"
    measure = partial(
        through.measure,
        engine,
        case,
        streams=options.streams,
        rounds=options.rounds,
        max_tokens=options.max_tokens,
        client_processes=options.clients,
        turns=options.turns,
        beside_server=options.server,
    )
    return run({"pipe": measure}, ["pipe"], as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pipe")
    parser.add_argument("--gpu", action="store_true", help="on one GPU, with a model of 1.4 B")
    parser.add_argument("--streams", type=int, nargs="+", default=[128, 256], help="streams at once (default: 128 256)")
    parser.add_argument("--clients", type=int, default=1, help="client processes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=1, help="times --max-tokens of each stream, in turn (default: 1)")
    parser.add_argument("--server", action="store_true", help="vLLM's own server beside them, read over HTTP")
    parser.add_argument("--max-tokens", type=int, default=128, help="output tokens of a request")
    parser.add_argument("--engine-core", type=int, default=0, help="CPU: the core that engines compute on")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
