"""``python -m tests.bench.pd``: prefill/decode separation, on the CPU or on one GPU."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import machine
from tests.bench.child import ChildFailed
from tests.bench.pd import handoff, identical, interference
from tests.bench.pd.mixture import Mixture
from tests.bench.pd.platform import Platform, cpu, gpu
from tests.bench.pd.wide_model import make
from tests.bench.pd.witness import NotHandedOver
from tests.bench.report import Row, document, table

WIDE_MODEL = Path(".cache/wide-model")
NAMES = ("identical", "handoff", "interference")


async def _measure(
    names: list[str], platform: Platform, mixture: Mixture, rounds: int, turns: int, run_s: float
) -> list[Row]:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)  # every child is ended on the way out
    benchmarks: dict[str, Callable[[], Awaitable[list[Row]]]] = {
        "identical": lambda: identical.measure(platform),
        "handoff": lambda: handoff.measure(platform, rounds=rounds, turns=turns),
        "interference": lambda: interference.measure(platform, mixture, rounds=rounds, run_s=run_s),
    }
    rows: list[Row] = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        measured = await benchmarks[name]()
        print(table(measured), file=sys.stderr)  # what is measured is not lost when a later one fails
        rows += measured
    return rows


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    options = _parser().parse_args()
    if options.gpu:
        make(WIDE_MODEL)
    platform = gpu(WIDE_MODEL, options.kv_block_size) if options.gpu else cpu(options.kv_block_size)
    mixture = Mixture(shorts_per_long=options.shorts_per_long)
    found = machine.describe()
    try:
        rows = asyncio.run(
            _measure(options.only or list(NAMES), platform, mixture, options.rounds, options.turns, options.run_s)
        )
    except (ChildFailed, NotHandedOver) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 130
    if options.json:
        print(document(found, rows))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()) + "\n\n" + table(rows))
    return 0


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
