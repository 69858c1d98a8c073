"""``python -m tests.chaos.figures [restarts] [executors] [takeovers]``: what clients wait for when one process dies."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from tests.chaos.figures import executors, restarts, takeovers

FIGURES: dict[str, Callable[[Path], Awaitable[Iterator[str]]]] = {
    "restarts": restarts.measure,
    "executors": executors.measure,
    "takeovers": takeovers.measure,
}


async def main(names: list[str]) -> None:
    """Measure what is named, or all, and print a table of each."""
    for name in names or list(FIGURES):
        with tempfile.TemporaryDirectory(prefix="sage-figures-") as folder:
            print("\n".join(await FIGURES[name](Path(folder))), end="\n\n", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
