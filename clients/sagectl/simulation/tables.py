"""Makes tables of what simulations gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagectl.output.tables import show_table

if TYPE_CHECKING:
    from sage_simulator.estimate import Estimate
    from sage_simulator.over_seeds import OverSeeds
    from sage_simulator.report import Summary


def _share(value: float) -> str:
    return f"{value:.1%}"


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _milliseconds(value: float) -> str:
    return f"{value * 1e3:.1f}"


def _one(value: float) -> str:
    return f"{value:.1f}"


_Column = tuple[str, str, Callable[[float], str]]  # title, name of the figure, how its value is written

_RUN_COLUMNS: Sequence[_Column] = (
    ("in target", "in_target_share", _share),
    ("goodput/s", "goodput_per_s", _one),
    ("TTFT p50", "ttft_p50_s", _seconds),
    ("TTFT p90", "ttft_p90_s", _seconds),
    ("TTFT p99", "ttft_p99_s", _seconds),
    ("TPOT p50", "tpot_p50_s", _milliseconds),
    ("TPOT p90", "tpot_p90_s", _milliseconds),
    ("TPOT p99", "tpot_p99_s", _milliseconds),
    ("queue p50", "queue_wait_p50_s", _seconds),
    ("queue p99", "queue_wait_p99_s", _seconds),
    ("cost", "cost", _seconds),
    ("fleet cost", "fleet_cost", _seconds),
    ("cost/M tokens", "cost_per_million_tokens", _seconds),
    ("unfinished", "unfinished", lambda value: f"{value:g}"),
)
_RUN_DROP = (
    "unfinished",
    "fleet cost",
    "queue p50",
    "TTFT p50",
    "TPOT p50",
    "cost/M tokens",
    "TTFT p90",
    "TPOT p90",
    "queue p99",
    "cost",
)
"""Columns that a narrow terminal leaves out, the least important first."""

_INSTANCE_COLUMNS = (
    "instance",
    "role",
    "speed",
    "price/h",
    "attempts",
    "in target",
    "busy",
    "running",
    "preempted",
    "hits",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table, to be printed or written into a report."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1  # columns that are aligned left
    text: Sequence[str] = ()  # further columns that are aligned left, and folded where they do not fit
    drop: Sequence[str] = ()  # to leave out on a narrow terminal, the least important first; empty: from the right

    def show(self) -> None:
        """Print it to stdout; figures are never cut."""
        figures = [each for each in self.columns[self.left :] if each not in self.text]
        whole = (self.columns[0], *figures)
        drop = self.drop or tuple(reversed(figures[1:]))
        show_table(self.title, self.columns, self.rows, right=figures, whole=whole, drop=drop, all_by="--json")


def counted(count: int, what: str) -> str:
    """Return a number of things in words: ``1 instance``, ``2 instances``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def runs_table(title: str, figures: Sequence[OverSeeds]) -> Table:
    """Make a table with a line for each policy.

    TTFT, queue and the 95 % intervals beside them are in seconds, TPOT in milliseconds.
    """
    rows = [
        (each.policy, *(estimated(each.figures[name], written) for _, name, written in _RUN_COLUMNS))
        for each in figures
    ]
    columns = ("policy", *(column for column, _, _ in _RUN_COLUMNS))
    return Table(title=title, columns=columns, rows=rows, drop=_RUN_DROP)


def estimated(estimate: Estimate | None, written: Callable[[float], str]) -> str:
    """Write a figure: its mean and, over several seeds, half the width of its 95 % interval."""
    if estimate is None:
        return "-"
    mean = written(estimate.mean)
    return mean if estimate.half_width is None else f"{mean} ±{written(estimate.half_width)}"


def instances_table(each: Summary) -> Table:
    """Make a table with a line for each instance of a simulation."""
    rows = [
        (
            one.instance_id,
            one.role,
            f"{one.speed:g}",
            f"{one.price_per_hour:g}",
            str(one.requests),
            str(one.in_target),
            f"{one.utilisation:.0%}",
            f"{one.mean_running:.1f}",
            str(one.preemptions),
            f"{one.prefix_hit_share:.0%}",
        )
        for one in each.instances
    ]
    return Table(title="Instances", columns=_INSTANCE_COLUMNS, rows=rows, left=2)


def followed_table(runs: Sequence[Summary]) -> Table | None:
    """Make a table with a line for each time in which a model followed one policy; None if each run has its own only.

    Times are in seconds; those in ``from`` since the trace began.
    """
    rows = [
        (
            run.policy,
            str(run.seed),
            each.model or "-",
            each.policy,
            _one(each.from_s),
            _one(each.until_s - each.from_s),
            each.reason or "it begins with it",
        )
        for run in runs
        if follows_others(run)
        for each in run.followed
    ]
    columns = ("policy", "seed", "model", "followed", "from", "for", "why")
    title = "Policies followed; seconds, from the beginning of the trace"
    return Table(title=title, columns=columns, rows=rows, left=4, text=("why",), drop=("seed",)) if rows else None


def follows_others(run: Summary) -> bool:
    """Whether a run's policy follows others, as ``adaptive`` does."""
    return any(each.policy != run.policy for each in run.followed)


def remarks(each: Summary) -> list[str]:
    """Say what the tables do not: policies followed, splits, changes of roles, failovers, stalls."""
    # The simulator needs the scheduler's package, which the other commands do without.
    from sage_simulator.followed_policies import shares

    said = []
    if follows_others(each):
        parts = ", ".join(f"{policy} {share:.0%}" for policy, share in shares(each.followed).items())
        changes = len(each.followed) - len({one.model for one in each.followed})
        said.append(f"followed {parts} of the time, {changes} {'switch' if changes == 1 else 'switches'}")
    if each.splits or each.split_fallbacks:
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(each.split_fallbacks.items()))
        said.append(f"{each.splits} placements on two instances" + (f"; not split: {causes}" if causes else ""))
    if each.role_changes:
        said.append(f"{each.role_changes} role changes")
    if each.failovers:
        said.append(f"{each.failovers} requests went on elsewhere, as their instance was lost")
    if each.stalls:
        said.append(f"{each.stalls} times an instance was taken for stalled")
    return [f"{each.policy}, seed {each.seed}: {text}" for text in said]
