"""Prints what simulations gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sagectl.tables import show_table

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
    ("p90", "ttft_p90_s", _seconds),
    ("p99", "ttft_p99_s", _seconds),
    ("TPOT p50", "tpot_p50_s", _milliseconds),
    ("p90", "tpot_p90_s", _milliseconds),
    ("p99", "tpot_p99_s", _milliseconds),
    ("queue p50", "queue_wait_p50_s", _seconds),
    ("p99", "queue_wait_p99_s", _seconds),
    ("cost", "cost", _seconds),
    ("fleet cost", "fleet_cost", _seconds),
    ("cost/M tokens", "cost_per_million_tokens", _seconds),
    ("unfinished", "unfinished", lambda value: f"{value:g}"),
)
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


def show_runs(title: str, figures: Sequence[OverSeeds], runs: Sequence[Summary]) -> None:
    """Print a line for each policy and, if there was only one simulation, a line for each of its instances.

    TTFT, queue and the 95 % intervals beside them are in seconds, TPOT in milliseconds.
    """
    titles = [title for title, _, _ in _RUN_COLUMNS]
    rows = [
        (each.policy, *(estimated(each.figures[name], written) for _, name, written in _RUN_COLUMNS))
        for each in figures
    ]
    show_table(title, ("policy", *titles), rows, right=titles)
    for each in runs if len(runs) == 1 else ():
        _show_instances(each)


def estimated(estimate: Estimate | None, written: Callable[[float], str]) -> str:
    """Write a figure: its mean and, over several seeds, half the width of its 95 % interval."""
    if estimate is None:
        return "-"
    mean = written(estimate.mean)
    return mean if estimate.half_width is None else f"{mean} ±{written(estimate.half_width)}"


def _show_instances(each: Summary) -> None:
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
    show_table("Instances", _INSTANCE_COLUMNS, rows, right=_INSTANCE_COLUMNS[2:])
