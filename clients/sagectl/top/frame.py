"""Lays out one frame of ``sagectl top`` in given columns and lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from rich.text import Text

from sage_client import FleetCounts, FleetSnapshot
from sagectl.output.durations import duration
from sagectl.top.latency import history, latency
from sagectl.top.section import Section, fit
from sagectl.top.sections import decisions, failovers, instances, prefill_decode, queues
from sagectl.top.sorting import SortBy

NARROWEST = 60  # columns; a narrower terminal truncates lines
CAUSE_LINES = 3  # of the cause of a lost connection

_KEYS_LISTED = (Text("keys: sort by i id, k KV, r running, w waiting, t tokens/s; ? these keys; q quit", style="bold"),)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionState:
    """The state of the connection behind a frame."""

    address: str  # of the scheduler
    trouble: str = ""  # why there is no connection; else empty
    age_s: float = 0.0  # seconds since the snapshot arrived


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What was chosen by keys."""

    sort_by: SortBy = SortBy.ID
    help: bool = False  # whether the keys are listed


_AS_AT_FIRST = Choices()


def frame(
    snapshot: FleetSnapshot | None,
    connection: ConnectionState,
    width: int,
    height: int | None,
    choices: Choices = _AS_AT_FIRST,
) -> list[Text]:
    """Return at most ``height`` lines (None: all) of at most ``width`` columns.

    What does not fit is left out in this order: older failovers and decisions, pairs, queues, READY instances; then
    whole sections from the end.
    """
    width = max(width, NARROWEST)
    said = [*_trouble(connection, snapshot, width), *(_KEYS_LISTED if choices.help else ())]
    if snapshot is None:
        return said[:height]
    sections = [
        Section(title=None, lines=said, least=len(said)),
        Section(title=None, lines=list(_head(snapshot, connection, width)), least=4),
        instances(snapshot.instances, width, choices.sort_by),
        queues(snapshot.queues, width),
        prefill_decode(snapshot.prefill_decode, width),
        failovers(snapshot.failovers, width),
        decisions(snapshot.decisions, width),
    ]
    lines = fit([section for section in sections if section.lines], height)
    if connection.trouble:
        for line in lines[len(said) :]:
            line.stylize("dim")
    return [_cut(line, width) for line in lines]


def _trouble(connection: ConnectionState, snapshot: FleetSnapshot | None, width: int) -> Iterator[Text]:
    """Yield lines about a connection that is not there, its cause whole; nothing if it is."""
    if snapshot is None:
        yield _cut(Text(f"connecting to {connection.address}", style="yellow"), width)
    elif connection.trouble:
        message = f"reconnecting to {connection.address}; data is {connection.age_s:.0f} s old"
        yield _cut(Text(message, style="bold yellow"), width)
    for line in wrap(connection.trouble, width)[:CAUSE_LINES]:
        yield Text(line, style="yellow")


def _head(snapshot: FleetSnapshot, connection: ConnectionState, width: int) -> Iterator[Text]:
    if not connection.trouble:
        policy = f"{snapshot.policy} → {snapshot.delegate}" if snapshot.delegate else snapshot.policy
        left = Text.assemble(("SAGE", "bold"), f" {connection.address}  up {duration(snapshot.uptime_s)}")
        yield _spread(left, Text.assemble("policy ", (policy, "bold cyan")), width)
    yield _rates(snapshot)
    yield _attainment(snapshot, width)
    yield _ends(snapshot.recent)
    yield from latency(snapshot)
    yield from history(snapshot.history, width)


def _rates(snapshot: FleetSnapshot) -> Text:
    latest = snapshot.latest
    span_s = latest.span_s or 1.0
    tokens = sum(each.generation_tokens_per_s for each in snapshot.instances)
    return Text.assemble(
        (f"{latest.finished / span_s:.1f}", "bold"),
        " requests/s  ",
        (f"{tokens:,.0f}", "bold"),
        " tokens/s  ",
        (f"{snapshot.requests_running}", "bold"),
        " running  ",
        (f"{snapshot.requests_waiting}", "bold"),
        f" waiting  {latest.accepted / span_s:.1f} arriving/s",
    )


def _attainment(snapshot: FleetSnapshot, width: int) -> Text:
    """Return the SLO attainment of all classes, then of each, the most urgent first; since the start if it fits in."""
    line = Text("SLO 5 min ").append_text(_share(snapshot.recent))
    since_start = Text("  since start ").append_text(_share(snapshot.since_start))
    classes = Text()
    for each in snapshot.recent.slo:
        share = each.met / (each.met + each.missed)
        classes.append(f"  {each.priority.name.lower()} ").append(_percent(share), style=_goodness(share))
    if line.cell_len + since_start.cell_len + classes.cell_len <= width:
        line.append_text(since_start)
    return line.append_text(classes)


def _share(counts: FleetCounts) -> Text:
    met = sum(each.met for each in counts.slo)
    counted = met + sum(each.missed for each in counts.slo)
    if not counted:
        return Text("–", style="dim")
    return Text(_percent(met / counted), style=f"bold {_goodness(met / counted)}")


def _percent(share: float) -> str:
    """Return a share as a percentage, 100% only where it is exactly that."""
    return "100%" if share == 1 else f"{min(share, 0.999):.1%}"


def _goodness(share: float) -> str:
    return "green" if share >= 0.99 else "yellow" if share >= 0.9 else "red"


def _ends(counts: FleetCounts) -> Text:
    line = Text(f"5 min: {counts.finished} finished")
    for count, word, style in (
        (counts.failed, "failed", "red"),
        (counts.expired, "expired", "red"),
        (counts.refused, "refused", "red"),
        (counts.cancelled, "cancelled", "yellow"),
        (counts.failovers, "failovers", "yellow"),
    ):
        line.append("  ").append(f"{count} {word}", style=style if count else "dim")
    return line


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def _spread(left: Text, right: Text, width: int) -> Text:
    """Return a line with one text at its left edge and one at its right edge."""
    gap = max(2, width - left.cell_len - right.cell_len)
    return left.append(" " * gap).append_text(right)
