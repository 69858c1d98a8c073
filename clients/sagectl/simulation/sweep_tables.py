"""Makes tables of what searches for a load or a fleet found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sagectl.simulation.tables import Table, estimated

if TYPE_CHECKING:
    from sage_simulator.cheapest_fleet import CheapestFleet
    from sage_simulator.highest_load import HighestLoad

_LOAD_COLUMNS = ("policy", "highest load", "requests/s", "in target", "TTFT p90", "TPOT p90", "cost/M tokens")

_FLEET_COLUMNS = ("policy", "instances", "price/h", "load", "in target", "TTFT p90", "TPOT p90", "fleets tried")


def highest_loads_table(title: str, found: Sequence[HighestLoad], capacity_per_s: float) -> Table:
    """Make a table with a line for each policy: its highest load, and what it gave there.

    TTFT in seconds, TPOT in milliseconds; 95 % intervals over the seeds beside the means.
    """
    policies = list(dict.fromkeys(each.policy for each in found))
    rows = [_load_row(policy, [each for each in found if each.policy == policy], capacity_per_s) for policy in policies]
    return Table(title=title, columns=_LOAD_COLUMNS, rows=rows)


def _load_row(policy: str, found: Sequence[HighestLoad], capacity_per_s: float) -> tuple[str, ...]:
    from sage_simulator.estimate import Estimate

    there = [each.best.summary for each in found if each.best is not None]
    return (
        policy,
        estimated(Estimate.of(each.load for each in found), lambda value: f"{value:.2f}"),
        estimated(Estimate.of(each.load * capacity_per_s for each in found), lambda value: f"{value:.1f}"),
        estimated(Estimate.of(each.in_target_share for each in there), lambda value: f"{value:.1%}"),
        estimated(Estimate.of(each.ttft.p90_s for each in there), lambda value: f"{value:.3f}"),
        estimated(Estimate.of(each.tpot.p90_s for each in there), lambda value: f"{value * 1e3:.1f}"),
        estimated(Estimate.of(each.cost_per_million_tokens for each in there), lambda value: f"{value:.3f}"),
    )


def cheapest_fleets_table(title: str, kinds: Sequence[str], found: Sequence[CheapestFleet]) -> Table:
    """Make a table with a line for each policy: the cheapest fleet, and what it gave.

    ``kinds``: the groups of instances as they were given.  TTFT in seconds, TPOT in milliseconds.
    """
    rows = [_fleet_row(kinds, each) for each in found]
    return Table(title=title, columns=_FLEET_COLUMNS, rows=rows, left=2)


def _fleet_row(kinds: Sequence[str], found: CheapestFleet) -> tuple[str, ...]:
    tried = f"{len(found.trials)}{'' if found.complete else ', not all'}"
    best = found.best
    if best is None:
        return (found.policy, "none is enough", "-", "-", "-", "-", "-", tried)
    names = [kind.strip().partition("x")[2] for kind in kinds]
    mix = "; ".join(f"{count}x{name}" for count, name in zip(best.counts, names, strict=True) if count)
    figures = best.gave.figures
    return (
        found.policy,
        mix,
        f"{best.price_per_hour:g}",
        f"{best.load:.2f}",
        estimated(figures["in_target_share"], lambda value: f"{value:.1%}"),
        estimated(figures["ttft_p90_s"], lambda value: f"{value:.3f}"),
        estimated(figures["tpot_p90_s"], lambda value: f"{value * 1e3:.1f}"),
        tried,
    )
