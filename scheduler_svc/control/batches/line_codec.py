"""The port to the format of lines: what they ask for, and how their results are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from scheduler_svc.control.journal.batches import StoredBatch
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.submission import Submission


class LineFault(Exception):
    """Something that is no line of a batch."""

    def __init__(self, code: str, message: str, param: str = "") -> None:
        self.code = code  # stable, such as "invalid_json_line"
        self.param = param  # the member at fault; may be empty
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class NotRun:
    """Why a line did not run to its end, though nothing is wrong with it."""

    code: str  # stable
    message: str


EXPIRED = NotRun("batch_expired", "the batch's deadline passed before the line had run")
CANCELLED = NotRun("batch_cancelled", "the batch was cancelled before the line had run")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLine:
    """One line of a batch."""

    index: int  # among the lines that are not empty, from 0
    custom_id: str  # by its caller, unique in the batch
    url: str  # what it asks for, such as "/v1/completions"
    body: Mapping[str, Any]  # the request
    digest: bytes  # of its content


class LineCodec(Protocol):
    """Reads lines and writes their results."""

    def parse(self, content: bytes, index: int, endpoint: str) -> BatchLine:
        """Return a line.  ``endpoint``: that of all lines; empty: each says its own.  Raises LineFault."""
        ...

    async def requests(self, line: BatchLine, batch: StoredBatch, deadline_s: float) -> Sequence[Submission]:
        """Return what a line asks for, as requests of the batch's tenant.

        ``deadline_s``: seconds until the batch expires.  Raises InvalidRequest, the fields named as in the body.
        """
        ...

    def succeeded(self, line: BatchLine, batch: StoredBatch, requests: Sequence[LiveRequest], now: float) -> bytes:
        """Return the result of a line whose requests finished.  ``now``: seconds since 1970.

        Raises InvalidRequest if it is too large.
        """
        ...

    def failed(self, line: BatchLine, batch: StoredBatch, error: Exception) -> bytes:
        """Return the result of a line that was refused, or whose requests did not finish."""
        ...

    def not_run(self, line: BatchLine, batch: StoredBatch, why: NotRun) -> bytes:
        """Return the result of a line whose batch ended before it did."""
        ...
