"""What chaos runs found: a line of JSON for each run, and tables of several.

python -m tests.chaos.report FILE prints the tables of a file of runs.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.gaps import Gaps, Spread
from tests.chaos.restart_load import Tally

Run = dict[str, Any]
"""Figures of one run; times are in seconds."""


@dataclass
class Report:
    """One run."""

    seed: int
    seconds: float
    tally: Tally
    gaps: Gaps
    detected: dict[str, list[float]]
    wrong: list[str] = field(default_factory=list)  # what was doubled, changed or ended wrongly, in words

    def values(self) -> Run:
        """Return the figures."""
        tally = self.tally
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "finished": dict(sorted(tally.finished.items())),
            "told_lost": dict(tally.lost),
            "refused": dict(tally.unsent),
            "split": tally.split,
            "wrong": self.wrong,
            "faults": dict(Counter(kind for kind, _ in self.gaps.faults)),
            "largest_gaps": _rounded(self.gaps.largest()),
            "gaps": {kind: _rounded(values) for kind, values in self.gaps.over_faults().items()},
            "detected": {kind: _rounded(values) for kind, values in self.detected.items()},
        }

    def append_to(self, path: Path) -> None:
        """Add a line to a file of runs."""
        with path.open("a") as file:
            file.write(json.dumps(self.values()) + "\n")

    def __str__(self) -> str:
        return "\n".join(tables([self.values()]))


def tables(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the lines of a page about runs."""
    yield "| seed | seconds | requests | split | faults | finished right | told lost | refused, sent again | wrong |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for run in runs:
        ends = [sum(run[name].values()) for name in ("finished", "told_lost", "refused")]
        faults = sum(run["faults"].values())
        cells = [run["seed"], f"{run['seconds']:g}", sum(ends), run["split"], faults, *ends, len(run["wrong"])]
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield "| kind of request | finished right |"
    yield "|---|---|"
    yield from (f"| {kind} | {count} |" for kind, count in sorted(_sums(run["finished"] for run in runs).items()))
    yield ""
    yield "| fault | times | gap of the streams that it struck | scheduler knew after |"
    yield "|---|---|---|---|"
    gaps, detected = _joined(run["gaps"] for run in runs), _joined(run["detected"] for run in runs)
    for kind, times in sorted(_sums(run["faults"] for run in runs).items()):
        known = Spread.of(detected[kind]) if kind in detected else "–"
        yield f"| {kind} | {times} | {Spread.of(gaps[kind]) if kind in gaps else '–'} | {known} |"
    yield ""
    largest = Spread.of(value for run in runs for value in run["largest_gaps"])
    yield f"Largest gap of each stream: {largest}."
    yield f"Told lost, by reason: {dict(_sums(run['told_lost'] for run in runs))}."
    for run in runs:
        yield from (f"WRONG, seed {run['seed']}: {each}" for each in run["wrong"])


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 3) for value in values]


def _sums(counts: Iterable[dict[str, int]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return found


def _joined(lists: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for each in lists:
        for kind, values in each.items():
            found[kind] += values
    return dict(found)


if __name__ == "__main__":
    print("\n".join(tables([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()])))
