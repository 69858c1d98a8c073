"""The formats that traces are read from, and the choice between them by content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceFormat:
    """A format of trace files."""

    name: str
    recognises: Callable[[SourceLine], bool]  # whether a file that begins with this line has the format
    read: Callable[[Path], Iterator[TracedRequest]]  # the requests in the file's order, arrivals from any zero
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


# In the order of recognition: aiperf's variant has Mooncake's fields too.
FORMATS = {
    form.name: form
    for form in (
        TraceFormat(name="azure", recognises=_has_columns(*azure.COLUMNS), read=azure.read_azure),
        TraceFormat(name="burstgpt", recognises=_has_columns(*burstgpt.COLUMNS), read=burstgpt.read_burstgpt),
        TraceFormat(name="sage", recognises=_is_own, read=read_own, from_zero=True),
        TraceFormat(name="recorded", recognises=_is_recorded, read=read_recorded),
        TraceFormat(name="aiperf", recognises=_is_aiperf, read=read_aiperf),
        TraceFormat(name="mooncake", recognises=_is_mooncake, read=read_mooncake),
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
        raise line.error(f"no known format begins like this; known: {', '.join(FORMATS)}")
    raise TraceError(path, "the file is empty")
