"""What a chaos run found, as one line of JSON and as a table."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.gaps import Gaps, Spread
from tests.chaos.restart_load import Tally


@dataclass
class Report:
    """One run."""

    seed: int
    seconds: float
    tally: Tally
    gaps: Gaps
    detected: dict[str, list[float]]
    wrong: list[str] = field(default_factory=list)  # what was doubled, changed or ended wrongly, in words

    def values(self) -> dict[str, Any]:
        """Return the figures; times are in seconds."""
        tally = self.tally
        faults = Counter(kind for kind, _ in self.gaps.faults)
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "requests": sum(map(Counter.total, (tally.finished, tally.lost, tally.unsent))),
            "finished": dict(sorted(tally.finished.items())),
            "told_lost": dict(tally.lost),
            "refused_before_acceptance": dict(tally.unsent),
            "split": tally.split,
            "doubled_changed_or_ended_wrongly": len(self.wrong),
            "wrong": self.wrong,
            "faults": dict(sorted(faults.items())),
            "largest_gap": self.gaps.largest().rounded(),
            "gap_over": {kind: spread.rounded() for kind, spread in self.gaps.over_faults().items()},
            "detected": {kind: Spread.of(found).rounded() for kind, found in sorted(self.detected.items())},
        }

    def append_to(self, path: Path) -> None:
        """Add a line to a file of runs."""
        with path.open("a") as file:
            file.write(json.dumps(self.values()) + "\n")

    def __str__(self) -> str:
        values = self.values()
        lines = [f"{name}: {value}" for name, value in values.items() if not isinstance(value, dict)]
        for name in ("finished", "told_lost", "refused_before_acceptance", "faults", "gap_over", "detected"):
            lines.append(f"{name}:")
            lines += [f"  {key}: {value}" for key, value in values[name].items()]
        lines.append(f"largest_gap: {values['largest_gap']}")
        return "\n".join(lines)
