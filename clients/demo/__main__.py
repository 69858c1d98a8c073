"""``python -m demo [--pd] [--engine vllm|simulated] [--model M]``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from demo.display import Display
from demo.pd_show import TURN_S, pd_spec_for, show_pd
from demo.show import BURST_S, show, spec_for


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 all went well, 1 something did not, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="One scheduler, two executors, five policies, a mixed load under each, and what the numbers show.",
    )
    parser.add_argument("--engine", choices=["vllm", "simulated"], default="vllm", help="default: %(default)s")
    parser.add_argument("--model", default="", help="hub id or path; default: a tiny model made here")
    parser.add_argument(
        "--burst-seconds",
        type=_positive,
        default=BURST_S,
        help="how long the burst under each policy is meant to take; default: %(default)s",
    )
    parser.add_argument(
        "--pd",
        action="store_true",
        help="prefill/decode separation instead: one executor that prefills, one that decodes",
    )
    parser.add_argument(
        "--turn-seconds",
        type=_positive,
        default=TURN_S,
        help="with --pd: how long each of the four turns of its comparison is meant to take; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    if options.pd:
        return asyncio.run(show_pd(pd_spec_for(options.engine, options.model), Display(), turn_s=options.turn_seconds))
    spec = spec_for(options.engine, options.model)
    return asyncio.run(show(spec, Display(), burst_s=options.burst_seconds))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError("must be above 0 and at most 600")
    return value


if __name__ == "__main__":
    sys.exit(main())
