"""Writes a report of simulations: one HTML file with tables and plots that loads nothing."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sagectl.simulation.sweep_tables import cheapest_fleets_table, highest_loads_table
from sagectl.simulation.tables import Table, followed_table, runs_table

if TYPE_CHECKING:
    from sage_simulator.cheapest_fleet import CheapestFleet
    from sage_simulator.highest_load import HighestLoad
    from sage_simulator.over_seeds import OverSeeds
    from sage_simulator.report import Summary

_CSS = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
code { background: #f3f3f3; padding: .15rem .35rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } img { width: 100%; }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One plot of a report."""

    title: str
    svg: str


def check_report(file: Path | None, option: str = "--report") -> None:
    """Raise UsageError if plots are asked for and cannot be written; called before anything is simulated."""
    if file is None:
        return
    check_folder(file, option)
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise click.UsageError(
            f"{option} needs the package matplotlib, which is not installed; install the extra simulator: "
            "pip install 'sage-control-plane[simulator]' (in a checkout: '.[simulator]')"
        ) from None


def check_folder(file: Path | None, option: str) -> None:
    """Raise UsageError if a file that is to be written has no folder; called before anything is simulated."""
    if file is not None and not file.parent.is_dir():
        raise click.UsageError(f"{option} {file}: there is no folder {file.parent}")


def report_runs(file: Path, title: str, figures: Sequence[OverSeeds], runs: Sequence[Summary]) -> None:
    """Report simulations of one load."""
    followed = followed_table(runs)
    tables = [runs_table(title, figures), *((followed,) if followed is not None else ())]
    _write(file, title, tables, _plots_of(_by_policy(runs)))


def report_highest_loads(file: Path, title: str, found: Sequence[HighestLoad], capacity: float, share: float) -> None:
    """Report searches for the highest load, with what was simulated there."""
    from sagectl.simulation.plots import attainment_against_load

    best = _by_policy([each.best.summary for each in found if each.best is not None])
    plots = [Plot(title="Attainment against load", svg=attainment_against_load(found, share))]
    plots += [Plot(title=f"{each.title}, at the highest load", svg=each.svg) for each in _plots_of(best)]
    _write(file, title, [highest_loads_table(title, found, capacity)], plots)


def report_cheapest_fleets(
    file: Path, title: str, kinds: Sequence[str], found: Sequence[CheapestFleet], share: float
) -> None:
    """Report searches for the cheapest fleet, with every fleet that was tried."""
    from sagectl.simulation.plots import attainment_against_price

    plots = [Plot(title="Attainment against price", svg=attainment_against_price(found, share))]
    _write(file, title, [cheapest_fleets_table(title, kinds, found)], plots)


def _plots_of(runs: dict[str, list[Summary]]) -> list[Plot]:
    from sagectl.simulation import plots

    if not runs:
        return []
    return [
        Plot(title="Time to first token", svg=plots.ttft_cdf(runs)),
        Plot(title="Time per output token", svg=plots.tpot_cdf(runs)),
        Plot(title="Queue, first seed", svg=plots.queue_over_time(runs)),
        Plot(title="Utilisation, first seed", svg=plots.utilisation_over_time(runs)),
        Plot(title="Cost, first seed", svg=plots.cost_over_time(runs)),
    ]


def _by_policy(runs: Sequence[Summary]) -> dict[str, list[Summary]]:
    found: dict[str, list[Summary]] = {}
    for each in runs:
        found.setdefault(each.policy, []).append(each)
    return found


def _write(file: Path, title: str, tables: Sequence[Table], plots: Sequence[Plot]) -> None:
    command = " ".join(["sagectl", *map(_quoted, sys.argv[1:])])
    body = [f"<h1>{escape(title)}</h1>", f"<p><code>{escape(command)}</code></p>", *map(_table, tables)]
    body += ['<div class="plots">', *map(_figure, plots), "</div>"]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_CSS}</style>'
    html = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
    try:
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--report {file}: {error.strerror}") from None


def _quoted(argument: str) -> str:
    return argument if argument.replace("-", "").replace(".", "").replace("/", "").isalnum() else f"'{argument}'"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in table.columns)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows)
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def _figure(plot: Plot) -> str:
    # As an image, a plot's names cannot clash with those of another.
    data = base64.b64encode(plot.svg.encode()).decode()
    title = escape(plot.title)
    return (
        f'<figure><figcaption>{title}</figcaption><img alt="{title}" src="data:image/svg+xml;base64,{data}"></figure>'
    )
