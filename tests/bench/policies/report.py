"""The texts that the benchmark writes: everything it found, and what a page needs of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench import machine
from tests.bench.policies.claims import judge
from tests.bench.policies.fixed_loads import BUSY, ECONOMICAL
from tests.bench.policies.plan import Goal
from tests.bench.policies.readings import Readings
from tests.bench.policies.stages import USUAL_SLOTS, USUAL_TARGETS
from tests.bench.policies.tables import (
    economy_table,
    goodput_tables,
    left_out_table,
    load_table,
    missed_table,
    summary_table,
    verdict_table,
)


def full_report(readings: Readings, left: Sequence[Goal]) -> str:
    """Return everything that was found, each group's tables too.  ``left``: what was not run."""
    verdicts = judge(readings)
    loads = [
        load_table(readings, group, load) for group in readings.groups for load in readings.at or (ECONOMICAL, BUSY)
    ]
    return _sections(
        {
            "# Policies": _run_facts(readings),
            "## Claims": summary_table(verdicts) if verdicts else "",
            "## Goodput": goodput_tables(readings),
            "## Claims by cell": verdict_table(verdicts) if verdicts else "",
            "## Loads": "\n\n".join(filter(None, loads)),
            "## Left out": left_out_table(left),
        }
    )


def short_report(readings: Readings) -> str:
    """Return the tables for a page: every claim, what misses it, goodput, and what the economical load costs."""
    verdicts = judge(readings)
    usual = [each for each in readings.groups if (each.slots, each.targets) == (USUAL_SLOTS, USUAL_TARGETS)]
    return _sections(
        {
            "## The run": _run_facts(readings),
            "## Claims": summary_table(verdicts) if verdicts else "",
            "## Cells that miss a claim": missed_table(verdicts) if verdicts else "",
            "## Goodput": goodput_tables(readings),
            "## Cost": economy_table(readings, [each for each in usual if each.fleet == "U8"], ECONOMICAL),
        }
    )


def _run_facts(readings: Readings) -> str:
    """Say what was run, and where."""
    search_s = readings.search_s if readings.search_s is not None else readings.duration_s
    described = [f"- {name}: {value}" for name, value in machine.describe().items()]
    run = f"{len(readings.results)} cells of {readings.duration_s:g} s of arrivals"
    goodput = f"at least {search_s:g} s where only the search for goodput needs a cell"
    return "\n".join([*described, f"- {run}, {goodput}; seeds up to {readings.seeds[-1]}"])


def _sections(parts: Mapping[str, str]) -> str:
    """Lay out what is not empty under its headings."""
    return "\n\n".join(f"{heading}\n\n{text}" for heading, text in parts.items() if text)
