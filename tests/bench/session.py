"""A run of named benchmarks to its end: what is measured, printed; what fails, said."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tests.bench import machine
from tests.bench.child import ChildFailed
from tests.bench.report import Row, document, table

Benchmark = Callable[[], Awaitable[list[Row]]]


class CannotMeasure(Exception):
    """A figure would not be of what it says."""


def run(benchmarks: Mapping[str, Benchmark], names: Sequence[str], *, as_json: bool) -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    found = machine.describe()
    try:
        rows = asyncio.run(_measure(benchmarks, names))
    except (ChildFailed, CannotMeasure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 130
    if as_json:
        print(document(found, rows))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()) + "\n\n" + table(rows))
    return 0


async def _measure(benchmarks: Mapping[str, Benchmark], names: Sequence[str]) -> list[Row]:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)  # every child is ended on the way out
    rows: list[Row] = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        measured = await benchmarks[name]()
        if len(names) > 1:
            print(table(measured), file=sys.stderr)  # what is measured is not lost when a later one fails
        rows += measured
    return rows
