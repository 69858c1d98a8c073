"""Azure's LLM inference traces (2023 and 2024): CSV with TIMESTAMP, ContextTokens, GeneratedTokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.csv_record import CsvRecord, csv_records

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read_azure(path: Path) -> Iterator[TracedRequest]:
    """Yield the requests as the file has them; arrivals are seconds since 1970.  Raises TraceError."""
    for record in csv_records(path, COLUMNS):
        yield TracedRequest(
            arrival_s=_seconds(record),
            prompt_tokens=record.tokens("ContextTokens"),
            output_tokens=record.tokens("GeneratedTokens"),
        )


def _seconds(record: CsvRecord) -> float:
    """Return the invocation time, UTC where no offset is stated; digits below a microsecond are dropped."""
    text = record.text("TIMESTAMP")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise record.error("TIMESTAMP", f"expected a date and time, got {text!r:.80}") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
