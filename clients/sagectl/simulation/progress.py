"""Shows on stderr how far simulations are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")


def progress(ends: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """Pass on what ends, with a bar on stderr if that is a terminal.  ``total``: None if it is unknown."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from ends
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        for each in ends:
            bar.advance(task)
            yield each
