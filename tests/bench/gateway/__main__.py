"""``python -m tests.bench.gateway``: the OpenAI gateway beside vLLM's own server.  Needs vLLM."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from executor_svc.engine.tiny_model import make_tiny_model
from tests.bench.engines import tiny_vllm
from tests.bench.gateway import engines, fronts
from tests.bench.session import Benchmark, run

TINY_MODEL = Path(".cache/tiny-model")
FRONTS, ENGINES = "fronts", "engines"


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway")
    parser.add_argument("--only", choices=(FRONTS, ENGINES), help="without engines, or with them (default: both)")
    parser.add_argument("--tokens", type=int, default=128, help="output tokens of a request (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each arm (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = parser.parse_args()
    make_tiny_model(TINY_MODEL)
    engine = tiny_vllm(TINY_MODEL, streams=engines.STREAMS)
    measured: dict[str, Benchmark] = {
        FRONTS: partial(fronts.measure, rounds=options.rounds, tokens=options.tokens),
        ENGINES: partial(engines.measure, engine, rounds=options.rounds, tokens=options.tokens),
    }
    return run(measured, [options.only] if options.only else list(measured), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
