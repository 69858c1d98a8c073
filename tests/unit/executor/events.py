"""A frame taken apart: what happened to each attempt, in order."""

from __future__ import annotations

from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.outputs import Accepted, Ended, Piece, Rejected, StepFrame

Event = Accepted | Rejected | Piece | Ended


def events(frame: StepFrame) -> list[Event]:
    return [*frame.accepted, *frame.rejected, *entries(frame), *frame.pieces, *frame.ended]


def entries(frame: StepFrame) -> list[Piece]:
    """The columns as pieces."""
    pieces, start = [], 0
    for number, first_index, count, text in zip(
        frame.numbers, frame.first_indexes, frame.counts, frame.texts, strict=True
    ):
        token_ids = frame.token_ids[start : start + count]
        start += count
        pieces.append(Piece(AttemptId(frame.epoch, number), first_index, token_ids, text))
    assert start == len(frame.token_ids)
    return pieces
