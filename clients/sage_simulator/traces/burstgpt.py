"""BurstGPT's traces: CSV with Timestamp, Model, Request tokens, Response tokens, Total tokens, Log Type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.csv_record import csv_records

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")


def read_burstgpt(path: Path) -> Iterator[TracedRequest]:
    """Yield the requests that were answered; arrivals are seconds since the first day began.  Raises TraceError.

    A row with 0 response tokens is a request that failed, and is left out.  The model's name is not kept: it names a
    service, not one of the simulated fleet's models.  Later releases have a column `Session ID`, which is kept.
    """
    for record in csv_records(path, COLUMNS):
        if record.number("Response tokens") == 0:
            continue
        yield TracedRequest(
            arrival_s=record.number("Timestamp"),
            prompt_tokens=record.tokens("Request tokens"),
            output_tokens=record.tokens("Response tokens"),
            session=record.text("Session ID") if record.has("Session ID") else "",
        )
