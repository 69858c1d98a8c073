"""What was measured, as a table for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.bench.markdown import markdown


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure.  ``value`` is the median over the run's rounds."""

    benchmark: str
    case: str
    value: float
    unit: str
    lowest: float  # of the rounds
    highest: float
    target: str = ""  # as the project states it; empty where it states none
    note: str = ""  # what else a reader needs to judge the figure


def table(rows: Sequence[Row]) -> str:
    """Markdown: reads well in a terminal too, and goes into a README as it is."""
    cells: list[tuple[str, ...]] = [("benchmark", "case", "median", "lowest - highest", "unit", "target", "note")]
    cells += [
        (
            row.benchmark,
            row.case,
            number(row.value),
            f"{number(row.lowest)} - {number(row.highest)}",
            row.unit,
            row.target,
            row.note,
        )
        for row in rows
    ]
    return markdown(cells)


def document(machine: dict[str, str], rows: Sequence[Row]) -> str:
    return json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2)


def number(value: float) -> str:
    """Three significant digits; whole where there are more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
