"""The sections of ``sagectl top`` below its head.  They fit 80 columns; wider terminals show more columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.text import Text

from sage_client import (
    Instance,
    InstanceState,
    PairState,
    PrefillDecodePair,
    PrefillDecodeStatus,
    Priority,
    QueueInfo,
    RecentDecision,
    RecentFailover,
    SplitMode,
)
from sagectl.output.bars import usage_bar
from sagectl.output.durations import duration
from sagectl.top.lines import Column, rest, row, titles
from sagectl.top.section import Section
from sagectl.top.sorting import COLUMNS, SortBy, in_order

WIDE, WIDER = 100, 140  # columns
FAILOVERS_SHOWN = 4

_BAR = 10
_FALLEN = (InstanceState.LOST, InstanceState.FAILED, InstanceState.STALLED)
_STATE_STYLES = {InstanceState.READY: "green", **dict.fromkeys(_FALLEN, "bold red")}

_CLASSES = [priority.name.lower() for priority in Priority]  # the most urgent first
_IDENTITY = 3  # columns of an instance that every state has


def instances(found: Sequence[Instance], width: int, sort_by: SortBy = SortBy.ID) -> Section:
    """Return the section of instances, those that are not READY first."""
    columns = _instance_columns(width)
    lines = [_instance(each, columns, width) for each in in_order(found, sort_by)]
    return Section(title=titles([_marked(each, sort_by) for each in columns]), lines=lines, least=4)


def _marked(column: Column, sort_by: SortBy) -> Column:
    """Return the column, with a mark if a key chose it to sort by."""
    return (
        replace(column, title=f"{column.title}▾")
        if sort_by is not SortBy.ID and column.title == COLUMNS[sort_by]
        else column
    )


def _instance_columns(width: int) -> list[Column]:
    columns = [
        Column(title="INSTANCE", width=16 if width < WIDE else 24),
        Column(title="ROLE", width=10),
        Column(title="STATE", width=11),
        Column(title="KV", width=_BAR + 5),
        Column(title="RUN", width=7, align="right"),
        Column(title="WAIT", width=5, align="right"),
        Column(title="TOKENS/S", width=9, align="right"),
    ]
    if width >= WIDER:
        columns += [
            Column(title="PROMPT/S", width=9, align="right"),
            Column(title="KV TOKENS", width=19, align="right"),
            Column(title="PRICE/H", width=8, align="right"),
        ]
    return [*columns, rest("MODEL", columns, width)] if width >= WIDE else columns


def _instance(instance: Instance, columns: Sequence[Column], width: int) -> Text:
    identity: list[Text | str] = [instance.instance_id, instance.role.value, _state(instance)]
    if instance.state is not InstanceState.READY:
        head = [*columns[: _IDENTITY - 1], _state_column(columns[_IDENTITY - 1], identity[-1])]
        return row([*head, rest("", head, width)], [*identity, _why(instance)])
    capacity = instance.kv_capacity_tokens or 1
    used, reserved = instance.kv_used_tokens / capacity, instance.kv_reserved_tokens / capacity
    known: dict[str, Text | str] = {
        "KV": usage_bar(used, reserved, _BAR).append(f"{max(used, reserved):>5.0%}"),
        "RUN": f"{instance.running}/{instance.max_running}",
        "WAIT": str(instance.waiting),
        "TOKENS/S": f"{instance.generation_tokens_per_s:,.0f}",
        "MODEL": instance.model,
        "KV TOKENS": f"{max(instance.kv_used_tokens, instance.kv_reserved_tokens):,}/{instance.kv_capacity_tokens:,}",
        "PROMPT/S": f"{instance.prompt_tokens_per_s:,.0f}",
        "PRICE/H": f"{instance.price_per_hour:g}",
    }
    return row(columns, [*identity, *(known[column.title] for column in columns[_IDENTITY:])])


def _state_column(column: Column, state: Text | str) -> Column:
    """Return the column of states, wide enough for a state that is longer; what follows it is free text."""
    return replace(column, width=max(column.width, len(state)))


def _state(instance: Instance) -> Text:
    text = instance.state.value
    if instance.progress is not None and instance.progress < 1 and instance.state is not InstanceState.READY:
        text = f"{text} {instance.progress:.0%}"
    return Text(text, style=_STATE_STYLES.get(instance.state, "yellow"))


def _why(instance: Instance) -> str:
    in_flight = f"{instance.assigned} in flight; " if instance.assigned else ""
    return f"{in_flight}{instance.known_wait or instance.state_reason} ({duration(instance.state_age_s)})"


def queues(found: Sequence[QueueInfo], width: int) -> Section:
    """Return the section of queues, the longest first."""
    columns = [
        Column(title="QUEUE", width=16 if width < WIDE else 24),
        Column(title="WAITING", width=13, align="right"),
    ]
    columns.append(rest("BY CLASS", columns, width))
    lines = []
    for each in sorted(found, key=lambda queue: -queue.waiting):
        waiting = [(each.waiting_by_priority.get(name, 0), name) for name in _CLASSES]
        by_class = ", ".join(f"{name} {count}" for count, name in waiting if count)
        lines.append(row(columns, [each.model, f"{each.waiting}/{each.limit}", by_class]))
    return Section(title=titles(columns), lines=lines, least=2)


def prefill_decode(status: PrefillDecodeStatus, width: int) -> Section:
    """Return the section of prefill/decode separation; empty if it is off and there is no pair."""
    if status.config.mode is SplitMode.NEVER and not status.pairs_by_state:
        return Section(title=None, lines=[], least=0)
    pairs = pairs_by_state(status)
    head = Text.assemble(
        ("PREFILL/DECODE ", "bold"),
        f"{status.config.mode.value}  {status.splits} split  ",
        (f"{status.fallbacks} fallbacks", "yellow" if status.fallbacks else ""),
        f"  pairs: {pairs}",
    )
    return Section(title=None, lines=[head, *_conditions(status), *_pairs(status.pairs)], least=2)


def pairs_by_state(status: PrefillDecodeStatus) -> str:
    """Return the number of pairs in each state, in words."""
    counts = status.pairs_by_state
    return ", ".join(f"{counts[s.value]:,} {s.value}" for s in PairState if s.value in counts) or "none"


def _conditions(status: PrefillDecodeStatus) -> Iterator[Text]:
    for condition in status.conditions:
        yield Text(f"! {condition}", style="bold red")


def _pairs(pairs: Sequence[PrefillDecodePair]) -> Iterator[Text]:
    """Yield a line per pair, those that are not usable first."""
    for each in sorted(pairs, key=lambda pair: pair.state is PairState.USABLE):
        line = Text(f"  {each.prefill_instance_id} → {each.decode_instance_id}: {each.state.value}")
        if each.handoff_s is not None:
            line.append(f", handoff {each.handoff_s:.3f} s")
        if each.reason:
            line.append(f", {each.reason}", style="red")
        yield line


def decisions(made: Sequence[RecentDecision], width: int) -> Section:
    """Return the section of recent decisions."""
    columns = [
        Column(title="AGO", width=6, align="right"),
        Column(title="REQUEST", width=13 if width < WIDE else 20 if width < WIDER else 36),
        Column(title="POLICY", width=14),
        Column(title="PHASE", width=6),
        Column(title="WHERE", width=18 if width < WIDER else 32),
    ]
    columns.append(rest("WHY", columns, width))
    lines = [
        row(
            columns,
            [duration(each.ago_s), each.request_id, each.policy, _phase(each), _where(each), each.reason],
        )
        for each in made
    ]
    return Section(title=titles(columns), lines=lines, least=3)


def _phase(decision: RecentDecision) -> Text:
    return Text("split", style="magenta") if decision.prefill_instance_id else Text("whole")


def _where(decision: RecentDecision) -> str:
    if decision.prefill_instance_id:
        return f"{decision.prefill_instance_id}→{decision.instance_id}"
    return decision.instance_id


def failovers(found: Sequence[RecentFailover], width: int) -> Section:
    """Return the section of the latest failovers, few enough to leave lines for the decisions."""
    columns = [
        Column(title="AGO", width=6, align="right"),
        Column(title="FAILOVER", width=13 if width < WIDE else 20 if width < WIDER else 36),
        Column(title="CAUSE", width=14),
    ]
    columns.append(rest("WHY", columns, width))
    lines = [
        row(columns, [duration(each.ago_s), each.request_id, Text(each.cause, style="red"), each.reason])
        for each in found[:FAILOVERS_SHOWN]
    ]
    return Section(title=titles(columns), lines=lines, least=2)
