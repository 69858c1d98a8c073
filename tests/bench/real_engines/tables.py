"""The runs as tables: each policy beside ``fifo`` on the same arrivals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from tests.bench.markdown import markdown
from tests.bench.real_engines.load_run import LoadRun

BASE = "fifo"
_COLUMNS = ("load", "policy", "in target, %", "beside fifo, points", "TTFT p50 / p90, s", "TPOT p50 / p90, ms")
_MORE = ("placed on", "cost per million tokens", "requests")


def policy_table(runs: Sequence[LoadRun]) -> str:
    """Return a Markdown table; figures are of all turns' requests, the difference to ``fifo`` the median of turns.

    Runs that the machine disturbed are left out, and counted in the last column.
    """
    rows: list[tuple[str, ...]] = [(*_COLUMNS, *_MORE)]
    for load in sorted({each.load for each in runs}):
        policies = dict.fromkeys(each.policy for each in sorted(runs, key=lambda run: run.policy != BASE))
        rows += [_row([each for each in runs if each.load == load], policy) for policy in policies]
    return markdown(rows)


def percentile(ascending: Sequence[float], percent: int) -> float:
    """Return the value that ``percent`` of the values do not exceed.  There must be one."""
    return ascending[-(-percent * len(ascending) // 100) - 1]


def _row(runs: Sequence[LoadRun], policy: str) -> tuple[str, ...]:
    all_own = [each for each in runs if each.policy == policy]
    own = [each for each in all_own if not each.disturbed]
    if not own:
        return (f"{all_own[0].load:g}", f"`{policy}`", *("-",) * 6, f"all {len(all_own)} turns left out")
    answers = [answer for each in own for answer in each.answers]
    placed = Counter(each.instance for each in answers if each.instance)
    tokens = sum(each.output_tokens for each in answers)
    return (
        f"{own[0].load:g}",
        f"`{policy}`",
        f"{100 * _kept(own):.1f}",
        _beside(runs, policy),
        _times((each.ttft_s for each in answers), 1.0, "{:.2f}"),
        _times((each.tpot_s for each in answers), 1e3, "{:.0f}"),
        " / ".join(str(placed[name]) for name in sorted(placed)),
        f"{1e6 * sum(each.cost for each in answers) / tokens:.3f}" if tokens else "-",
        f"{len(answers)} in {len(own)} turns, {len(all_own) - len(own)} left out",
    )


def _kept(runs: Iterable[LoadRun]) -> float:
    answers = [answer.in_target for each in runs for answer in each.answers]
    return sum(answers) / len(answers)


def _beside(runs: Sequence[LoadRun], policy: str) -> str:
    """Return by how many points a policy is above ``fifo``, turn by turn: median, lowest and highest."""
    quiet = [each for each in runs if not each.disturbed]
    own, base = ({(each.begun, each.turn): each for each in quiet if each.policy == name} for name in (policy, BASE))
    points = [100 * (_kept([own[turn]]) - _kept([base[turn]])) for turn in own if turn in base]
    if policy == BASE or not points:
        return "-"
    return f"{median(points):+.1f} ({min(points):+.1f} to {max(points):+.1f})"


def _times(values: Iterable[float | None], factor: float, form: str) -> str:
    found = sorted(each * factor for each in values if each is not None)
    return f"{form.format(percentile(found, 50))} / {form.format(percentile(found, 90))}" if found else "-"
