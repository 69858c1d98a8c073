"""The lines of ``sagectl top`` about latency and the last minutes."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from sage_client import FleetSnapshot, FleetStretch, Percentiles
from sagectl.output.sparkline import sparkline

STRETCH_S = 5.0  # seconds of one stretch of the history


def latency(snapshot: FleetSnapshot) -> Iterator[Text]:
    """Yield a line with percentiles of the last five minutes; nothing if no request with a token ended in them."""
    recent = snapshot.recent
    measured = (
        ("TTFT", recent.time_to_first_token),
        ("per token", recent.time_per_output_token),
        ("in all", recent.total),
    )
    shown = [(name, found) for name, found in measured if found is not None]
    if not shown:
        return
    line = Text("p50/95/99")
    for name, found in shown:
        line.append(f"  {name} ").append(_figures(found), style="bold")
    yield line


def _figures(found: Percentiles) -> str:
    """Return the three figures with their unit: milliseconds if all are below a second."""
    scale, unit = (1_000.0, "ms") if found.p99_s < 1 else (1.0, "s")
    return "/".join(_short(value * scale) for value in (found.p50_s, found.p95_s, found.p99_s)) + f" {unit}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _in_words(seconds: float) -> str:
    return f"{_short(seconds)} s" if seconds >= 1 else f"{_short(1_000 * seconds)} ms"


def history(stretches: tuple[FleetStretch, ...], width: int) -> Iterator[Text]:
    """Yield a line with the last five minutes: arrivals, and the time to the first token; nothing before there are any.

    The highest bar of each is its largest value, which stands after it.
    """
    if not stretches:
        return
    arriving = [each.accepted / STRETCH_S for each in stretches]
    first_token = [each.time_to_first_token_p95_s for each in stretches]
    slowest = max((value for value in first_token if value is not None), default=None)
    before, after = "5 min  arriving ", f" {_short(max(arriving))}/s"
    before_slowest, after_slowest = ("  TTFT p95 ", f" {_in_words(slowest)}") if slowest else ("", "")
    taken = sum(map(len, (before, after, before_slowest, after_slowest)))
    bars = max(4, (width - taken) // (2 if slowest else 1))
    line = Text(before).append(sparkline(arriving, bars), style="cyan").append(after, style="dim")
    if slowest:
        line.append(before_slowest).append(sparkline(first_token, bars), style="magenta")
        line.append(after_slowest, style="dim")
    yield line
