"""Batches: files of requests that the scheduler runs by itself, and the files of their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sage_client._enums import Priority
from sage_client._plain import Plain


class BatchState(Enum):
    """State of a batch."""

    VALIDATING = "validating"  # its lines are being checked; none has run
    IN_PROGRESS = "in_progress"  # its lines run
    CANCELLING = "cancelling"  # it was cancelled; lines that had not finished are being written to the error file
    COMPLETED = "completed"  # every line has run, with or without success
    FAILED = "failed"  # its input cannot be used, so no line has run: ``Batch.faults`` says why
    EXPIRED = "expired"  # its deadline passed; lines that had not finished are in the error file
    CANCELLED = "cancelled"  # lines that had not finished are in the error file
    UNKNOWN = "unknown"


class FilePurpose(Enum):
    """What a file is for."""

    BATCH = "batch"  # lines of a batch, to be run
    BATCH_OUTPUT = "batch_output"  # what became of the lines of a batch
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile(Plain):
    """A file that the scheduler keeps."""

    file_id: str
    tenant: str
    name: str  # as its owner calls it; of an output, made of the batch's id
    purpose: FilePurpose
    size_bytes: int  # so far, if a batch still writes it
    created_at: datetime
    keep_until: datetime | None  # when it is deleted; None: a batch that has not ended reads or writes it


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchCounts(Plain):
    """How many lines a batch has, and what became of them."""

    total: int  # 0 while they are counted
    completed: int  # in the output file
    failed: int  # in the error file

    @property
    def ended(self) -> int:
        """Lines that have ended, either way."""
        return self.completed + self.failed


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFault(Plain):
    """Why the input of a batch cannot be used."""

    code: str  # a stable name, such as "invalid_json_line"
    message: str
    line: int | None  # of the input, from 1; None: the file as a whole
    param: str  # the member of the line that is at fault; may be empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch(Plain):
    """A batch as the scheduler knows it."""

    batch_id: str
    tenant: str
    state: BatchState
    endpoint: str  # of its lines, such as "/v1/chat/completions"; empty: each line says its own
    priority: Priority  # of lines that name none
    input_file_id: str
    output_file_id: str  # empty: no line has been answered yet
    error_file_id: str  # empty: no line has failed yet
    counts: BatchCounts
    faults: tuple[BatchFault, ...]  # of a batch that failed; the first ones
    metadata: Mapping[str, str]  # as its owner set it
    created_at: datetime
    expires_at: datetime | None  # its deadline
    started_at: datetime | None  # when its lines began to run; None: not yet
    cancelling_at: datetime | None  # when it was cancelled; None: it was not
    ended_at: datetime | None  # None: it has not ended
    keep_until: datetime | None  # when it is deleted, with its output and error file; None: it has not ended

    @property
    def ended(self) -> bool:
        """Whether it is over, and its files are complete."""
        return self.ended_at is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchAnswer(Plain):
    """What became of one line of a batch: a line of its output file or its error file."""

    custom_id: str  # as the input line has it
    status_code: int  # the HTTP status that the request would have had; 0: it was not made
    body: Any  # the answer as OpenAI's API has it; None: there is none
    error_code: str  # empty: there is no error
    error: str  # what went wrong; empty: nothing

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.status_code == 200 and not self.error_code

    @property
    def text(self) -> str:
        """The text of its first choice; empty if it has none."""
        choices = self.body.get("choices") if isinstance(self.body, dict) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict):
            return ""
        message = first.get("message")
        found = message.get("content") if isinstance(message, dict) else first.get("text")
        return found if isinstance(found, str) else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOutcome(Plain):
    """A batch that is over, with everything that became of its lines."""

    batch: Batch
    answers: tuple[BatchAnswer, ...]  # in the order in which they ended; those that failed come last

    def __iter__(self) -> Iterator[BatchAnswer]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def by_custom_id(self) -> dict[str, BatchAnswer]:
        """Return the answers by the ids that the input lines have."""
        return {each.custom_id: each for each in self.answers}
