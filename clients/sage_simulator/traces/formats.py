"""The formats that traces are read from, and the choice between them by content."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import azure, burstgpt
from sage_simulator.traces.aiperf import read_aiperf
from sage_simulator.traces.csv_record import csv_cells
from sage_simulator.traces.json_record import JsonRecord
from sage_simulator.traces.mooncake import FIELDS_OF_AIPERF, read_mooncake
from sage_simulator.traces.own_format import FORMAT, read_own
from sage_simulator.traces.recording.as_trace import FORMAT as RECORDED
from sage_simulator.traces.recording.as_trace import read_recorded
from sage_simulator.traces.source_lines import SourceLine, source_lines
from sage_simulator.traces.trace_error import TraceError

_LONGEST = 500  # characters of a message about a header


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceFormat:
    """A format of trace files."""

    name: str
    begins: str  # what a file of this format begins with, in words
    recognises: Callable[[SourceLine], bool]  # whether a file that begins with this line has the format
    read: Callable[[Path], Iterator[TracedRequest]]  # the requests in the file's order, arrivals from any zero
    columns: Sequence[str] = ()  # of a format with a header
    from_zero: bool = False  # whether the file's arrivals are already seconds since the trace began


def _has_columns(*columns: str) -> Callable[[SourceLine], bool]:
    return lambda line: not _is_object(line) and set(columns) <= set(csv_cells(line))


def _is_object(line: SourceLine) -> bool:
    return line.text.lstrip().startswith("{")


def _is_own(line: SourceLine) -> bool:
    return _is_object(line) and JsonRecord.of(line).fields.get("format") == FORMAT


def _is_recorded(line: SourceLine) -> bool:
    return _is_object(line) and JsonRecord.of(line).fields.get("format") == RECORDED


def _is_aiperf(line: SourceLine) -> bool:
    return _is_object(line) and any(map(JsonRecord.of(line).has, (*FIELDS_OF_AIPERF, "text_input", "messages")))


def _is_mooncake(line: SourceLine) -> bool:
    return _is_object(line) and JsonRecord.of(line).has("input_length")


def _csv_format(name: str, columns: Sequence[str], read: Callable[[Path], Iterator[TracedRequest]]) -> TraceFormat:
    begins = f"a header with {', '.join(columns)}"
    return TraceFormat(name=name, begins=begins, columns=columns, recognises=_has_columns(*columns), read=read)


# In the order of recognition: aiperf's variant has Mooncake's fields too.
FORMATS = {
    form.name: form
    for form in (
        _csv_format("azure", azure.COLUMNS, azure.read_azure),
        _csv_format("burstgpt", burstgpt.COLUMNS, burstgpt.read_burstgpt),
        TraceFormat(
            name="sage", begins=f'{{"format": "{FORMAT}", ...}}', recognises=_is_own, read=read_own, from_zero=True
        ),
        TraceFormat(
            name="recorded", begins=f'{{"format": "{RECORDED}", ...}}', recognises=_is_recorded, read=read_recorded
        ),
        TraceFormat(
            name="aiperf", begins='{"input_length": ..., "delay": ...}', recognises=_is_aiperf, read=read_aiperf
        ),
        TraceFormat(
            name="mooncake",
            begins='{"timestamp": ..., "input_length": ..., "output_length": ...}',
            recognises=_is_mooncake,
            read=read_mooncake,
        ),
    )
}


def read_trace(path: Path, format: str | None = None) -> list[TracedRequest]:
    """Return the trace of a file, sorted by arrival; None: the first line tells the format.

    The first arrival is at 0, but in the simulator's own format, whose arrivals are kept as they are.
    Raises TraceError where the file has no requests or is broken, ValueError on an unknown format, and OSError.
    """
    chosen = _by_content(path) if format is None else _by_name(format)
    trace = list(chosen.read(path))
    if not trace:
        raise TraceError(path, "the trace has no requests")
    trace.sort(key=lambda request: request.arrival_s)
    began_s = 0.0 if chosen.from_zero else trace[0].arrival_s
    if began_s:
        for index, request in enumerate(trace):  # in place: no second list of a large trace
            trace[index] = replace(request, arrival_s=request.arrival_s - began_s)
    return trace


def _by_name(name: str) -> TraceFormat:
    if name not in FORMATS:
        raise ValueError(f"unknown trace format {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def _by_content(path: Path) -> TraceFormat:
    for line in source_lines(path):
        for form in FORMATS.values():
            if form.recognises(line):
                return form
        raise line.error(_why_unknown(line))
    raise TraceError(path, "the file is empty")


def _why_unknown(line: SourceLine) -> str:
    """Say what a file's first line lacks of the format that it is most like, else what each format begins with."""
    if line.text.lstrip().startswith("["):
        return "a list in JSON; a trace has one object on each line"
    cells = csv_cells(line)
    if len(cells) == 1 and len(split := re.split(r"[;\t|]", cells[0])) > 1:
        return f"the {len(split)} cells are not separated by commas"
    alike = {form.name: _found(form.columns, cells) for form in FORMATS.values() if form.columns}
    like = max(alike, key=lambda name: len(alike[name]))
    if alike[like]:
        lacking = [each for each in FORMATS[like].columns if each not in cells]
        return f"the header lacks {', '.join(lacking)} of the format {like}; it has {', '.join(cells)}"[:_LONGEST]
    known = "; ".join(f"{form.name}: {form.begins}" for form in FORMATS.values())
    return f"no known format begins with {line.text.strip()!r:.60}.  Formats begin so: {known}"


def _found(columns: Sequence[str], cells: Sequence[str]) -> list[str]:
    """Return those of the columns that are among the cells, however they are written."""
    there = {_plain(each) for each in cells}
    return [each for each in columns if _plain(each) in there]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
