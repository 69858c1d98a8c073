"""A StepFrame of an executor that is not trusted: its columns agree, or the error names the one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from sage.controlplane.v1 import executor_pb2
from scheduler_svc.transport import step_frames
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.step_frames import check_sizes, columns

WHOLE: dict[str, Any] = {
    "attempt_numbers": [4, 9],
    "first_indexes": [7, 0],
    "counts": [2, 1],
    "token_ids": [11, 12, 13],
    "text_lengths": [1, 2],
    "text": "\N{GRINNING FACE}ab",
}


def frame(**changed: Any) -> executor_pb2.StepFrame:
    return executor_pb2.StepFrame(**{**WHOLE, **changed})


def test_columns_are_taken_out_as_they_are() -> None:
    found = columns(frame())
    assert (found.numbers, found.first_indexes, found.counts) == ([4, 9], [7, 0], [2, 1])
    assert (found.token_ids, found.text_lengths, found.text) == ([11, 12, 13], [1, 2], "\N{GRINNING FACE}ab")


def test_a_frame_without_output_has_empty_columns() -> None:
    assert columns(executor_pb2.StepFrame()) == ([], [], [], [], [], "")


def test_counts_and_text_may_be_left_out() -> None:
    found = columns(frame(counts=[], token_ids=[11, 12], text_lengths=[], text=""))
    assert (found.counts, found.token_ids, found.text) == ([], [11, 12], "")


@pytest.mark.parametrize(
    ("column", "changed"),
    [
        ("first_indexes", {"first_indexes": [7]}),
        ("first_indexes", {"attempt_numbers": []}),
        ("counts", {"counts": [3]}),
        ("counts", {"counts": [1, 1, 1]}),
        ("text_lengths", {"text_lengths": [3]}),
        ("token_ids", {"token_ids": [11, 12]}),
        ("token_ids", {"token_ids": [11, 12, 13, 14]}),
        ("token_ids", {"counts": []}),
        ("token_ids", {"counts": [2**32 - 1, 1]}),
        ("text", {"text": "ab"}),
        ("text", {"text": "abcd"}),
        ("text", {"text_lengths": []}),
    ],
)
def test_a_column_that_does_not_agree_is_named(column: str, changed: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=rf"^step\.{column}: has"):
        columns(frame(**changed))


@pytest.mark.parametrize("column", ["accepted", "rejected", "attempt_numbers", "pieces", "ended", "token_ids"])
def test_a_column_that_is_too_long_is_named(column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_frames, "ENTRIES_LIMIT", 3)
    monkeypatch.setattr(step_frames, "TOKENS_LIMIT", 3)
    field = executor_pb2.StepFrame.DESCRIPTOR.fields_by_name[column]
    each: Any = 1 if field.message_type is None else {}
    few: dict[str, Any] = {column: [each] * 3}
    many: dict[str, Any] = {column: [each] * 4}
    check_sizes(executor_pb2.StepFrame(**few))
    with pytest.raises(WireError, match=rf"^step\.{column}: has 4 entries; the limit is 3"):
        check_sizes(executor_pb2.StepFrame(**many))
