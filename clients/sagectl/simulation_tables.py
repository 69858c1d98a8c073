"""Prints what simulations gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sagectl.tables import show_table

if TYPE_CHECKING:
    from sage_simulator.report import Summary

_RUN_COLUMNS = (
    "policy",
    "in target",
    "goodput/s",
    "TTFT p50",
    "p90",
    "p99",
    "TPOT p50",
    "p90",
    "p99",
    "queue p50",
    "p99",
    "cost",
    "fleet cost",
    "cost/M tokens",
    "unfinished",
)
_INSTANCE_COLUMNS = ("instance", "speed", "price/h", "requests", "in target", "busy", "running", "preempted", "hits")


def show_runs(title: str, runs: Sequence[Summary]) -> None:
    """Print a line for each run and, if there is only one, a line for each of its instances.

    TTFT and queue are in seconds, TPOT in milliseconds.
    """
    show_table(title, _RUN_COLUMNS, [_run(each) for each in runs], right=_RUN_COLUMNS[1:])
    for each in runs if len(runs) == 1 else ():
        rows = [
            (
                one.instance_id,
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
        show_table("Instances", _INSTANCE_COLUMNS, rows, right=_INSTANCE_COLUMNS[1:])


def _run(each: Summary) -> tuple[str, ...]:
    return (
        each.policy,
        f"{each.in_target_share:.1%}",
        f"{each.goodput_per_s:.1f}",
        *(_figure(value, 1) for value in (each.ttft.p50_s, each.ttft.p90_s, each.ttft.p99_s)),
        *(_figure(value, 1e3) for value in (each.tpot.p50_s, each.tpot.p90_s, each.tpot.p99_s)),
        _figure(each.queue_wait.p50_s, 1),
        _figure(each.queue_wait.p99_s, 1),
        f"{each.cost:.3f}",
        f"{each.fleet_cost:.3f}",
        _figure(each.cost_per_million_tokens, 1),
        str(each.requests - each.ends["finished"]),
    )


def _figure(value: float | None, factor: float) -> str:
    if value is None:
        return "-"
    return f"{value * factor:.3f}" if factor == 1 else f"{value * factor:.1f}"
