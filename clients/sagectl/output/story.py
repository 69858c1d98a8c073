"""Draws a request's history: events in time order, every decision with its reasons, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from sage_client import Candidate, Decision, Explanation, HistoryEntry, SloResult, TimeUse
from sagectl.output.bars import span_bar

CANDIDATES_SHOWN = 16
SLICES_SHOWN = 24
BAR_WIDTH = 32

_JUSTIFIED: tuple[JustifyMethod, ...] = ("left", "left", "right", "right")

USE_STYLES = {
    TimeUse.QUEUE: "yellow",
    TimeUse.PREFILL: "cyan",
    TimeUse.TRANSFER: "magenta",
    TimeUse.DECODE: "green",
    TimeUse.LOST: "red",
}
EVENT_STYLES = {
    "placed": "cyan",
    "first_token": "green",
    "resumed": "green",
    "finished": "bold green",
    "requeued": "red",
    "fallback": "red",
    "failed": "bold red",
    "expired": "bold red",
    "cancelled": "bold yellow",
}


def story(explanation: Explanation) -> RenderableType:
    """Return the history of a request, ready to print."""
    parts: list[RenderableType] = [_headline(explanation), *_status(explanation), Text(), _history(explanation)]
    if explanation.time_slices:
        parts += [Text(), _times(explanation)]
    return Group(*parts)


def _headline(explanation: Explanation) -> Text:
    tokens = f"{explanation.prompt_tokens} prompt + {explanation.completion_tokens} output tokens"
    about = [explanation.model, explanation.priority.name.lower(), tokens]
    if explanation.cost:
        about.append(f"cost {explanation.cost:.3g}")
    state = explanation.state.value
    style = EVENT_STYLES.get(state, "bold")
    return Text.assemble((explanation.request_id, "bold"), ": ", (state, style), f" ({', '.join(about)})")


def _status(explanation: Explanation) -> Iterator[Text]:
    if explanation.error:
        yield Text(f"ended with: {explanation.error}", style="red")
    if explanation.queue_position:
        yield Text(f"position {explanation.queue_position} in the queue, ordered by {explanation.ordering_key}")
    if explanation.waiting_because:
        yield Text(f"waits because: {explanation.waiting_because}", style="yellow")
    if explanation.slo:
        yield Text("targets: ").append_text(Text(", ").join(_target(each) for each in explanation.slo))


def _target(result: SloResult) -> Text:
    measured = f"{result.target} {result.measured_s:.3f} s of {result.wanted_s:g} s"
    return Text.assemble(measured, (" met", "green") if result.met else (" missed", "red"))


def _history(explanation: Explanation) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    decisions = enumerate(explanation.decisions, 1)
    for entry in explanation.history:
        made = next(decisions, None) if entry.event == "placed" else None
        detail = Text(entry.detail) if made is None else _decision(*made)
        table.add_row(f"{entry.at_s:.3f} s", _event(entry), detail)
    for made in decisions:  # the scheduler dropped their events from a long history
        table.add_row("", "", _decision(*made))
    return table


def _event(entry: HistoryEntry) -> Text:
    return Text(entry.event.replace("_", " "), style=EVENT_STYLES.get(entry.event, ""))


def _decision(number: int, decision: Decision) -> Group:
    predicted = decision.prediction
    lines = [
        f"decision {number}: {where(decision)}",
        f"{decision.waited_s:.3f} s after arrival; {decision.policy} decided; {decision.queue_length} left waiting",
        *(f"- {reason}" for reason in decision.reasons),
        f"- {'split' if decision.prefill_instance_id else 'whole'}: {decision.phase_reason}",
        f"predicted: start {predicted.start_s:.3f} s, first token {predicted.first_token_s:.3f} s, finish "
        f"{predicted.finish_s:.3f} s, {predicted.output_tokens} output tokens, cost {predicted.cost:.3g}; "
        f"{decision.reserved_tokens} KV tokens reserved",
    ]
    parts: list[RenderableType] = [Text(lines[0], style="bold"), *(Text(line) for line in lines[1:])]
    if decision.candidates:
        parts.append(_candidates(decision.candidates))
    return Group(*parts)


def where(decision: Decision) -> str:
    """Return the instance of a decision in words, or both instances of a split request."""
    if decision.prefill_instance_id:
        return f"prefill on {decision.prefill_instance_id}, decode on {decision.instance_id}"
    return f"on {decision.instance_id}"


def _candidates(candidates: tuple[Candidate, ...]) -> RenderableType:
    """Return a table: the chosen candidate, then the compared ones, then the filtered ones, 16 at most."""
    scorers = sorted({name for each in candidates for name in each.scores})
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("candidate", no_wrap=True)
    for name in scorers:
        table.add_column(name, justify="right", no_wrap=True)
    cached = any(each.cached_tokens for each in candidates)
    if cached:
        table.add_column("cached tokens", justify="right", no_wrap=True)
    table.add_column("filtered because")
    ordered = sorted(candidates, key=lambda each: (not each.chosen, bool(each.filtered_by)))
    for each in ordered[:CANDIDATES_SHOWN]:
        table.add_row(*_candidate(each, scorers, cached=cached))
    more = len(candidates) - CANDIDATES_SHOWN
    return Group(table, Text(f"  and {more} more (--json has all)", style="dim")) if more > 0 else table


def _candidate(candidate: Candidate, scorers: list[str], *, cached: bool) -> list[Text | str]:
    name = Text.assemble(("▸ ", "green"), (candidate.instance_id, "bold"))
    if not candidate.chosen:
        name = Text(f"  {candidate.instance_id}")
    scores = [f"{candidate.scores[scorer]:.4g}" if scorer in candidate.scores else "" for scorer in scorers]
    if cached:
        scores.append(str(candidate.cached_tokens or ""))
    why_not = f"{candidate.filtered_by}: {candidate.filter_reason}" if candidate.filtered_by else ""
    return [name, *scores, Text(why_not, style="dim")]


def _times(explanation: Explanation) -> RenderableType:
    """Return a table with a bar per time slice, at its position in the request's time."""
    slices = explanation.time_slices
    whole_s = slices[-1].start_s + slices[-1].length_s or 1e-9
    table = Table.grid(padding=(0, 2))
    for justify in _JUSTIFIED:
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(no_wrap=True)
    for each in slices[:SLICES_SHOWN]:
        style = USE_STYLES.get(each.use, "")
        bar = span_bar(each.start_s / whole_s, each.length_s / whole_s, BAR_WIDTH, style)
        share = f"{each.length_s / whole_s:.0%}"
        table.add_row(Text(each.use.value, style=style), each.instance_id, f"{each.length_s:.3f} s", share, bar)
    parts: list[RenderableType] = [Text(f"where the time went: {whole_s:.3f} s", style="bold"), table]
    if len(slices) > len({each.use for each in slices}):
        parts.append(_totals(explanation))
    return Group(*parts)


def _totals(explanation: Explanation) -> Text:
    totals: dict[TimeUse, float] = {}
    for each in explanation.time_slices:
        totals[each.use] = totals.get(each.use, 0.0) + each.length_s
    parts = [Text(f"{use.value} {total:.3f} s", style=USE_STYLES.get(use, "")) for use, total in totals.items()]
    return Text("in all: ").append_text(Text(", ").join(parts))
