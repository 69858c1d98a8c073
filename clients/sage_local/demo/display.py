"""Prints a demonstration with rich: lines, tables and progress bars."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from sage_local.demo.interference import Figures
from sage_local.demo.outcome import Outcome
from sage_local.demo.round import Round, cost_per_1000_tokens, per_instance
from sage_local.demo.split_request import SplitRequest
from sage_local.fleet.progress import ProgressLines
from sage_local.fleet.status import FleetPhase, FleetStatus, InstanceProgress

PIPE_WIDTH = 160  # columns

_CLASS_COLOURS = {"CRITICAL": "red", "HIGH": "yellow", "NORMAL": "green", "LOW": "cyan", "BACKGROUND": "blue"}
_ARRANGEMENTS = {"general": "2 general", "split": "1 prefill + 1 decode"}
_COLUMNS = ("class", "requests", "wait median", "wait worst", "TTFT median", "targets met")


class Display:
    """Prints lines and tables to stdout, with colours only on a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, soft_wrap=True, width=PIPE_WIDTH)

    def say(self, line: str = "") -> None:
        """Print a line."""
        self.console.print(escape(line))

    def heading(self, line: str) -> None:
        """Print a heading after an empty line."""
        self.console.print(f"\n[bold]{escape(line)}[/bold]")

    def error(self, line: str) -> None:
        """Print an error to stderr."""
        sys.stdout.flush()
        print(f"error: {line}", file=sys.stderr, flush=True)

    def request(self, outcome: Outcome) -> None:
        """Print the line of a request of the policy demonstration that has just ended."""
        planned = outcome.planned
        name = planned.priority.name
        who = f"{outcome.request_id}  [{_CLASS_COLOURS[name]}]{name:<10}[/] {planned.kind:<11}"
        if outcome.error:
            self.console.print(f"  {who} [bold red]FAILED[/] {escape(outcome.error)}")
            return
        rate = "" if outcome.tokens_per_s is None else f"{outcome.tokens_per_s:5.0f} tokens/s"
        ttft = "" if outcome.ttft_s is None else f"TTFT {outcome.ttft_s:6.3f} s"
        again = f"  (attempt {outcome.attempts})" if outcome.attempts > 1 else ""
        where = f"{outcome.instance_id}  {ttft}  {outcome.tokens:4} tokens  {rate}"
        self.console.print(f"  {who} {escape(f'{where}  {outcome.why}{again}')}")

    def split_request(self, seen: SplitRequest) -> None:
        """Print the line of a request of the prefill/decode demonstration that has just ended."""
        who = f"{seen.kind:<9}"
        if seen.error or seen.decision is None or seen.timings is None:
            self.console.print(f"  {who} [bold red]FAILED[/] {escape(seen.error)}")
            return
        times = seen.timings
        where = f"{seen.decision.prefill_instance_id} -> " if seen.split else ""
        parts = (("queue", times.queue_s), ("prefill", times.prefill_s), ("transfer", times.transfer_s))
        spent = " ".join(f"{name} {_milliseconds(value)}" for name, value in (*parts, ("decode", times.decode_s)))
        how = "[cyan]split[/]" if seen.split else "whole"
        again = f" (attempt {seen.attempts})" if seen.attempts > 1 else ""
        line = f"{where + seen.decision.instance_id:<24} {spent}  TTFT {_milliseconds(times.time_to_first_token_s)}"
        phase = seen.decision.phase.value
        self.console.print(
            f"  {who} {seen.prompt_tokens:5} tokens  {how} {phase:<9} {escape(f'{line}  {seen.why}{again}')}"
        )

    def interference(self, found: dict[str, Figures]) -> None:
        """Print the comparison of both arrangements as a table and in a sentence."""
        table = Table(title="short streams while long prompts arrive", title_justify="left", title_style="bold")
        columns = ("inter-token p50", "p99", "longest pause", "TTFT of the long", "short", "long", "split")
        for column in ("two engines", *columns):
            table.add_column(column, justify="left" if column == "two engines" else "right")
        for name, each in found.items():
            seconds = (each.itl_p50_s, each.itl_p99_s, each.longest_pause_s, each.long_ttft_s)
            counts = (each.shorts, each.longs, each.split)
            table.add_row(_ARRANGEMENTS[name], *(_milliseconds(s).strip() for s in seconds), *map(str, counts))
        self.console.print(table)
        whole, split = found["general"], found["split"]
        self.say(
            f"p99 inter-token latency of the short streams: {split.itl_p99_s * 1e3:.1f} ms with prefill and decode "
            f"separated, {whole.itl_p99_s * 1e3:.1f} ms with two general executors "
            f"({split.itl_p99_s / whole.itl_p99_s:.2f} times); p50 {split.itl_p50_s * 1e3:.1f} and "
            f"{whole.itl_p50_s * 1e3:.1f} ms"
        )

    def round(self, this: Round) -> None:
        """Print the results of one policy."""
        table = Table(title=f"{this.policy}: the burst, by class", title_justify="left", title_style="bold")
        for column in _COLUMNS:
            table.add_column(column, justify="left" if column == "class" else "right")
        for row in this.by_class():
            table.add_row(
                row.priority.name,
                str(row.requests),
                _seconds(row.wait_median_s),
                _seconds(row.wait_worst_s),
                _seconds(row.ttft_median_s),
                f"{row.slo_met} of {row.slo_asked}",
            )
        self.console.print(table)
        for part, outcomes in (("burst", this.burst), ("trickle", this.trickle)):
            counts = ", ".join(f"{name} {count}" for name, count in per_instance(outcomes).items())
            cost = cost_per_1000_tokens(outcomes)
            self.say(f"  {part}: {counts}; 1,000 tokens cost {'-' if cost is None else f'{cost:.6f}'}")
        for switch in this.switches:
            self.say(f"  switched {switch.from_policy} -> {switch.to_policy}: {switch.reason}")


class LoadingDisplay:
    """Shows the start of the engines: a progress bar each on a terminal, else a line per change."""

    def __init__(self, display: Display) -> None:
        self._on_terminal = display.console.is_terminal
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lines = ProgressLines(lambda line: display.say(f"  {line}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Remove the bars; idempotent."""
        self._on_terminal = False
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def show(self, status: FleetStatus) -> None:
        """Show a status that the supervisor reports; remove the bars when the start is over."""
        if status.phase is not FleetPhase.STARTING:
            self.finish()
        if not self._on_terminal:
            self._lines.show(status)
            return
        bars = self._bars or self._start(status)
        for instance in status.instances:
            if (task := self._tasks.get(instance.instance_id)) is not None:
                _move(bars, task, instance)

    def _start(self, status: FleetStatus) -> Progress:
        """Start with a bar per executor: a display that grows later would scroll the screen."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        bars = self._bars = Progress(*columns, TimeElapsedColumn(), console=Console(highlight=False), transient=True)
        for process in status.processes[1:]:
            text = f"{process.name} ({process.where})" if process.where else process.name
            self._tasks[process.name] = bars.add_task(text, total=None, state="starting")
        bars.start()
        return bars


def _move(bars: Progress, task: TaskID, instance: InstanceProgress) -> None:
    share = 1.0 if instance.state == "ready" else instance.progress
    total = None if share is None else 1.0  # a bar without a total only shows activity
    bars.update(task, completed=share or 0.0, total=total, state=instance.state)


def _milliseconds(value: float | None) -> str:
    return "    -   " if value is None else f"{value * 1e3:5.0f} ms"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"
