"""The tables that the benchmark prints, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import truediv

from sage_simulator.estimate import Estimate
from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.markdown import markdown
from tests.bench.policies.cell import Group
from tests.bench.policies.claims import Verdict
from tests.bench.policies.plan import Goal
from tests.bench.policies.readings import Readings


def goodput_tables(readings: Readings) -> str:
    """Return a table for each kind of fleet, slots and targets that was run: loads by policies."""
    kinds = {(each.fleet, each.slots, each.targets): None for each in readings.groups}
    tables = [goodput_table(readings, [each for each in readings.groups if _kind(each) == kind]) for kind in kinds]
    return "\n\n".join(filter(None, tables)) or "none"


def _kind(group: Group) -> tuple[str, int, str]:
    return group.fleet, group.slots, group.targets


def goodput_table(readings: Readings, groups: Sequence[Group]) -> str:
    """Return a row for each policy and a column for each group that was run; the best first; empty if none was."""
    groups = [group for group in groups if any(readings.goodput(group, policy) for policy in readings.policies)]
    rows = []
    for policy in readings.policies:
        found = [readings.goodput(group, policy) for group in groups]
        means = [each.mean for each in found if each is not None]
        if means:
            rows.append((-sum(means) / len(means), [policy, *(_goodput(each, readings.loads[-1]) for each in found)]))
    header = ["goodput, of capacity", *map(str, groups)]
    return markdown([header, *(row for _, row in sorted(rows))]) if rows else ""


def _goodput(value: Estimate | None, most: float) -> str:
    """Write a goodput; one at the highest load of the grid may be higher still."""
    return ("≥ " if value is not None and value.mean >= most else "") + estimate(value)


def load_table(readings: Readings, group: Group, load: float) -> str:
    """Return what each policy gave in a group at a load; empty if none was run there."""
    rows = []
    for policy in readings.policies:
        share = readings.estimate(group, policy, load, lambda figures: figures.in_target_share)
        if share is None:
            continue
        cells = [
            readings.estimate(group, policy, load, read)
            for read in (
                lambda f: f.cost_per_million_tokens,
                lambda f: f.fleet_cost_per_million_tokens,
                lambda f: f.critical_ttft_p99_s,
                lambda f: f.ttft_p99_s,
                lambda f: f.tpot_p90_s * 1e3 if f.tpot_p90_s is not None else None,
                lambda f: f.queue_wait_p99_s,
                lambda f: f.placed_imbalance,
                lambda f: f.busy_imbalance,
            )
        ]
        rows.append((-share.mean, [policy, estimate(share), *map(estimate, cells)]))
    header = [
        f"{group} at {load:g}",
        "in target",
        "cost/M tokens",
        "fleet's",
        "CRITICAL TTFT p99, s",
        "TTFT p99, s",
        "TPOT p90, ms",
        "queue p99, s",
        "placed, max by mean",
        "busy, max by mean",
    ]
    return markdown([header, *(row for _, row in sorted(rows))]) if rows else ""


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return a row for each claim in each group, claims together."""
    rows = [
        [each.claim, str(each.group), estimate(each.value), _target(each), each.words, each.note]
        for each in sorted(verdicts, key=lambda each: (each.claim, -each.short_by))
    ]
    return markdown([["claim", "cell", "value", "target", "verdict", "of what"], *rows])


def summary_table(verdicts: Sequence[Verdict]) -> str:
    """Return a row for each claim: in how many groups it is met, how many other seeds may decide, and the worst one."""
    rows = []
    for claim in sorted({each.claim for each in verdicts}):
        of_claim = [each for each in verdicts if each.claim == claim]
        judged = [each for each in of_claim if each.words != "told"]
        worst = max(of_claim, key=lambda each: each.short_by if judged else -each.value.mean)
        met = f"{sum(each.short_by <= 0 for each in judged)} of {len(judged)}" if judged else "told"
        undecided = str(sum(each.undecided for each in judged))
        rows.append([claim, met, undecided, _target(worst), estimate(worst.value), str(worst.group), worst.note])
    header = ["claim", "cells that meet it", "undecided", "target", "worst value", "worst cell", "of what"]
    return markdown([header, *rows])


def missed_table(verdicts: Sequence[Verdict]) -> str:
    """Return a row for each claim and group that misses it; "none" where all are met."""
    missed = [each for each in verdicts if each.short_by > 0]
    return verdict_table(missed) if missed else "none"


def economy_table(readings: Readings, groups: Sequence[Group], load: float) -> str:
    """Return a row for each group and policy: the share in target, and the cost per token by ``fifo``'s; empty if none.

    The cost is that from each instance's first use to its last, and that of the whole fleet over the whole run.
    """
    rows = []
    for group in groups:
        for policy in readings.policies:
            share = readings.estimate(group, policy, load, lambda figures: figures.in_target_share)
            both = (policy, "fifo")
            costs = [
                readings.compared(group, both, load, read, truediv)
                for read in (lambda f: f.cost_per_million_tokens, lambda f: f.fleet_cost_per_million_tokens)
            ]
            if share is not None and policy in BUILTIN:
                rows.append([str(group), policy, *map(estimate, (share, *costs))])
    header = [f"load {load:g}", "policy", "in target", "cost by fifo's", "whole fleet's by fifo's"]
    return markdown([header, *rows]) if rows else ""


def left_out_table(goals: Sequence[Goal]) -> str:
    """Return a row for each fleet, slots and targets: for how many loads, policies and seeds something is left."""
    if not goals:
        return "nothing"
    left = Counter(_kind(each.group) for each in goals)
    rows = [
        [
            fleet,
            str(slots),
            targets,
            str(count),
            ", ".join(sorted({each.group.traffic for each in goals if _kind(each.group) == (fleet, slots, targets)})),
            ", ".join(sorted({each.policy for each in goals if _kind(each.group) == (fleet, slots, targets)})),
        ]
        for (fleet, slots, targets), count in left.items()
    ]
    header = ["fleet", "slots", "targets", "loads x policies x seeds left", "of the loads", "of the policies"]
    return markdown([header, *rows])


def _target(verdict: Verdict) -> str:
    if verdict.at_least is not None:
        return f"≥ {verdict.at_least:.3g}"
    return f"≤ {verdict.at_most:.3g}" if verdict.at_most is not None else ""


def estimate(value: Estimate | None) -> str:
    """Write a mean and half of its 95 % interval."""
    if value is None:
        return "-"
    if value.half_width is None:
        return f"{value.mean:.3g}"
    return f"{value.mean:.3g} ± {value.half_width:.2g}"
