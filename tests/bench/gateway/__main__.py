"""``python -m tests.bench.gateway``: the OpenAI gateway beside vLLM's own server."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from tests.bench.gateway import fronts
from tests.bench.session import run


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway")
    parser.add_argument("--streams", type=int, default=64, help="streams at once (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="output tokens of a request (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each arm (default: %(default)s)")
    parser.add_argument("--step-s", type=float, default=0.02, help="beat of the tokens (default: %(default)s)")
    parser.add_argument("--workers", type=int, action="append", help="workers of a gateway; may be given again")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = parser.parse_args()
    cases = [
        fronts.Case(route=route, streams=options.streams, tokens=tokens)
        for route in fronts.PATHS
        for tokens in (options.tokens, 4)
    ]
    measured = partial(
        fronts.measure, cases, rounds=options.rounds, step_s=options.step_s, workers=options.workers or [1]
    )
    return run({"gateway": measured}, ["gateway"], as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
