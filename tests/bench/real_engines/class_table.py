"""First tokens by class: whether requests of one class wait for those of others."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.request import Priority
from tests.bench.markdown import markdown
from tests.bench.real_engines.load_run import LoadRun
from tests.bench.real_engines.tables import percentile

_COLUMNS = ("load", "policy", "class", "in target, %", "TTFT p50 / p90 / p99, s", "requests")


def class_table(runs: Sequence[LoadRun]) -> str:
    """Return a Markdown table of all turns' requests by load, policy and class.

    Runs that the machine disturbed are left out.
    """
    quiet = [each for each in runs if not each.disturbed]
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for load, policy in sorted({(each.load, each.policy) for each in quiet}):
        own = [each for each in quiet if (each.load, each.policy) == (load, policy)]
        rows += [row for priority in Priority if (row := _row(own, priority.name))]
    return markdown(rows)


def _row(runs: Sequence[LoadRun], priority: str) -> tuple[str, ...] | None:
    answers = [each for run in runs for each in run.answers if each.priority == priority]
    if not answers:
        return None
    firsts = sorted(each.ttft_s for each in answers if each.ttft_s is not None)
    times = " / ".join(f"{percentile(firsts, percent):.3f}" for percent in (50, 90, 99)) if firsts else "-"
    kept = 100 * sum(each.in_target for each in answers) / len(answers)
    return (f"{runs[0].load:g}", f"`{runs[0].policy}`", priority, f"{kept:.1f}", times, f"{len(answers)}")
