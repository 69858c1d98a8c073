"""Shows on stderr how far a batch is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sage_client import Batch, BatchCounts

PARTS = 10
"""Lines that a pipe gets of a batch, beside those of its states."""


class BatchProgress:
    """Is told of a batch again and again, and shows what changed until its end."""

    def __init__(self, bar: Progress | None) -> None:
        """``bar``: None: lines."""
        self._bar = bar
        self._task = bar.add_task("", total=None) if bar is not None else None
        self._shown: tuple[str, int] | None = None  # state, and tenths of the lines

    def __call__(self, batch: Batch) -> None:
        """Show how far the batch is."""
        counts = batch.counts
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=counts.total or None, completed=counts.ended, description=_words(batch))
            return
        if batch.ended:
            return  # the command says it
        now = (batch.state.value, PARTS * counts.ended // counts.total if counts.total else 0)
        if now != self._shown:
            self._shown = now
            click.echo(f"{batch.batch_id}: {summary(batch)}", err=True)


@contextmanager
def batch_progress() -> Iterator[BatchProgress]:
    """Give what shows a batch's progress, while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield BatchProgress(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield BatchProgress(bar)


def summary(batch: Batch) -> str:
    """Return a batch's state and counts in words."""
    return f"{batch.state.value}, {_count(batch.counts)}" if batch.counts.total else batch.state.value


def _count(counts: BatchCounts) -> str:
    failed = f", {counts.failed} of them failed" if counts.failed else ""
    return f"{counts.ended} of {counts.total} lines{failed}"


def _words(batch: Batch) -> str:
    return f"{batch.state.value}, {batch.counts.failed} failed" if batch.counts.failed else batch.state.value
