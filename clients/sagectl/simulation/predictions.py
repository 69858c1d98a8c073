"""Shows what a recorded scheduler predicted beside what came: a table, and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sagectl.simulation.tables import Table

if TYPE_CHECKING:
    from sage_simulator.calibration.predictions import PredictionErrors, Predictions

_COLUMNS = ("", "judged", "error, median", "p90", "within 25%", "predicted / came")


def show_predictions(errors: dict[str, PredictionErrors]) -> None:
    """Print the errors of each kind of prediction."""
    from sage_simulator.calibration.predictions import LEARNED_REQUESTS, LEAST_WAIT_S

    names = {
        "first_token": f"first token, from placement; not the first {LEARNED_REQUESTS} of an instance",
        "wait": f"wait in the queue, told at acceptance; of {LEAST_WAIT_S:g} s or longer",
    }
    rows = [(names[kind], *_figures(each)) for kind, each in errors.items()]
    Table(title="Predictions of the recorded scheduler, as shares of what came", columns=_COLUMNS, rows=rows).show()


def draw_predictions(found: Predictions, file: Path) -> None:
    """Draw predicted times against those that came, as SVG.  Raises OSError."""
    from sagectl.simulation.plots import predicted_against_measured

    panels = {"First token, from placement": found.first_tokens, "Wait in the queue": found.waits}
    file.write_text(predicted_against_measured(panels), encoding="utf-8")


def _figures(each: PredictionErrors) -> tuple[str, ...]:
    ratio = "-" if each.median_ratio is None else f"{each.median_ratio:.2f}"
    return (str(each.judged), _share(each.median_error), _share(each.p90_error), _share(each.close_share), ratio)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
