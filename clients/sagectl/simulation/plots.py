"""Draws the plots of a simulation's report, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sage_simulator.calibration.predictions import CLOSE

if TYPE_CHECKING:
    from sage_simulator.calibration.predictions import Predicted
    from sage_simulator.cheapest_fleet import CheapestFleet
    from sage_simulator.highest_load import HighestLoad
    from sage_simulator.report import Summary
    from sage_simulator.timeline import TimelinePoint

# Text stays text, and the same data always gives the same bytes.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "sage", "font.family": "sans-serif", "font.size": 9}
_SIZE_IN = (5.2, 3.2)  # of one panel
_LEAST_PLOTTED_S = 1e-3  # a predicted time below it is drawn here, as its logarithm may not exist


def ttft_cdf(runs: Mapping[str, Sequence[Summary]]) -> str:
    """Draw the share of requests whose first token came within a time, for each policy; means over its seeds."""
    return _cdf("TTFT, seconds", runs, lambda each: each.ttft_percentiles_s, 1.0)


def tpot_cdf(runs: Mapping[str, Sequence[Summary]]) -> str:
    """Draw the share of requests whose time per output token was within a time; means over a policy's seeds."""
    return _cdf("TPOT, milliseconds", runs, lambda each: each.tpot_percentiles_s, 1e3)


def queue_over_time(runs: Mapping[str, Sequence[Summary]]) -> str:
    """Draw the requests that wait in the scheduler, over the time of each policy's first seed."""
    return _over_time("requests in the queue", runs, lambda each: each.waiting)


def utilisation_over_time(runs: Mapping[str, Sequence[Summary]]) -> str:
    """Draw the share of the instances' time in which a step ran, over the time of each policy's first seed."""
    return _over_time("utilisation, %", runs, lambda each: each.utilisation * 100)


def cost_over_time(runs: Mapping[str, Sequence[Summary]]) -> str:
    """Draw the cost of the fleet so far, over the time of each policy's first seed."""
    return _over_time("cost of the fleet so far", runs, lambda each: each.fleet_cost)


def attainment_against_load(found: Sequence[HighestLoad], share: float) -> str:
    """Draw the share of requests in target against the load: every load that was tried, of every seed."""

    def draw(axes: Axes) -> None:
        for number, policy in enumerate(dict.fromkeys(each.policy for each in found)):
            points = sorted(
                (point.load, point.summary.in_target_share * 100)
                for each in found
                if each.policy == policy
                for point in each.points
            )
            loads, shares = zip(*points, strict=True)
            axes.plot(loads, shares, marker="o", markersize=3, color=f"C{number}", label=policy)
        axes.axhline(share * 100, color="grey", linestyle=":", linewidth=1)
        axes.set_xlabel("load, share of the fleet's computed capacity")
        axes.set_ylabel("requests in target, %")

    return _drawn(draw)


def attainment_against_price(found: Sequence[CheapestFleet], share: float) -> str:
    """Draw the share of requests in target against the fleet's price: every fleet that was tried."""

    def draw(axes: Axes) -> None:
        for number, each in enumerate(found):
            prices = [trial.price_per_hour for trial in each.trials]
            shares = [
                estimate.mean * 100 for trial in each.trials if (estimate := trial.gave.figures["in_target_share"])
            ]
            axes.scatter(prices, shares, s=14, color=f"C{number}", label=each.policy)
        axes.axhline(share * 100, color="grey", linestyle=":", linewidth=1)
        axes.set_xlabel("price of the fleet per hour")
        axes.set_ylabel("requests in target, %")

    return _drawn(draw)


def predicted_against_measured(panels: Mapping[str, Sequence[Predicted]]) -> str:
    """Draw predicted times against those that came, a panel for each kind, with lines where they agree to a quarter."""

    def draw(title: str, found: Sequence[Predicted]) -> Callable[[Axes], None]:
        def on(axes: Axes) -> None:
            came = [each.came_s for each in found]
            predicted = [max(each.predicted_s, _LEAST_PLOTTED_S) for each in found]
            axes.scatter(came, predicted, s=4, alpha=0.4, linewidths=0)
            ends = [min((*came, *predicted), default=0.1), max((*came, *predicted), default=1.0)]
            for factor, style in ((1.0, "-"), (1 - CLOSE, ":"), (1 + CLOSE, ":")):
                axes.plot(ends, [end * factor for end in ends], color="grey", linestyle=style, linewidth=1)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(f"{title} ({len(found)})", fontsize=9)
            axes.set_xlabel("came after, seconds")
            axes.set_ylabel("predicted, seconds")

        return on

    return _drawn(*(draw(title, found) for title, found in panels.items()))


def _cdf(
    label: str,
    runs: Mapping[str, Sequence[Summary]],
    percentiles: Callable[[Summary], Sequence[float]],
    factor: float,
) -> str:
    def draw(axes: Axes) -> None:
        for policy, summaries in runs.items():
            columns = list(zip(*filter(None, map(percentiles, summaries)), strict=True))
            if columns:
                axes.plot([sum(each) / len(each) * factor for each in columns], range(101), label=policy)
        axes.set_xlabel(label)
        axes.set_ylabel("requests within, %")
        if all(value > 0 for each in runs.values() for one in each for value in percentiles(one)):
            axes.set_xscale("log")

    return _drawn(draw)


def _over_time(label: str, runs: Mapping[str, Sequence[Summary]], value: Callable[[TimelinePoint], float]) -> str:
    def draw(axes: Axes) -> None:
        for policy, summaries in runs.items():
            points = summaries[0].timeline
            axes.plot([each.at_s for each in points], list(map(value, points)), linewidth=1, label=policy)
        for at_s in _changes(next(iter(runs.values()))[0].timeline):
            axes.axvline(at_s, color="grey", linestyle=":", linewidth=1)
        axes.set_xlabel("seconds since the trace began")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)

    return _drawn(draw)


def _changes(points: Sequence[TimelinePoint]) -> list[float]:
    """Return when the number of instances changed."""
    return [after.at_s for before, after in pairwise(points) if before.instances != after.instances]


def _drawn(*panels: Callable[[Axes], None]) -> str:
    width_in, height_in = _SIZE_IN
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width_in * len(panels), height_in), layout="constrained")
        for number, draw in enumerate(panels, 1):
            axes = figure.add_subplot(1, len(panels), number)
            draw(axes)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False)
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()
