"""The one buffer of a request's output: each token once and in order, and any position can be read from."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_svc.control.requests import output_log
from scheduler_svc.control.requests.output_log import LOGPROB_BYTES, OutputGap, OutputLog


def filled(*pieces: tuple[int, list[int], str]) -> OutputLog:
    """From (attempt, token ids, text)."""
    log = OutputLog(limit=1000)
    for attempt, ids, text in pieces:
        if len(ids) == 1:
            assert log.append_token(attempt, len(log), ids[0], text)
        else:
            assert log.append(attempt, len(log), ids, text, None)
    return log


def test_what_goes_in_comes_out() -> None:
    log = filled((1, [5, 6], "ab"), (1, [7], "c"))
    piece = log.read(0)
    assert list(piece.token_ids) == [5, 6, 7]
    assert (piece.attempt_number, piece.first_index, piece.text_offset, piece.text) == (1, 0, 0, "abc")


def test_a_slice_ends_where_another_attempt_takes_over() -> None:
    log = filled((1, [5, 6], "ab"), (4, [7, 8], "cd"))
    first, second = log.read(0), log.read(2)
    assert (first.attempt_number, list(first.token_ids), first.text) == (1, [5, 6], "ab")
    assert (second.attempt_number, list(second.token_ids), second.text) == (4, [7, 8], "cd")
    assert second.text_offset == 2


def test_what_came_before_is_dropped_when_it_comes_again() -> None:
    log = filled((1, [5, 6, 7], "abc"))
    assert not log.append(1, 0, [5, 6], "ab", None)
    assert not log.append(1, 1, [6, 7], "bc", None)
    assert list(log.token_ids) == [5, 6, 7]


@pytest.mark.parametrize("first_index", [4, 2], ids=["a hole", "half of it known"])
def test_what_does_not_join_is_refused(first_index: int) -> None:
    log = filled((1, [5, 6, 7], "abc"))
    with pytest.raises(OutputGap, match="output is at 3"):
        log.append(1, first_index, [8, 9], "de", None)
    assert len(log) == 3


def test_more_than_was_asked_for_is_refused() -> None:
    log = OutputLog(limit=3)
    log.append(1, 0, [5, 6], "ab", None)
    with pytest.raises(OutputGap, match="limit of 3"):
        log.append(1, 2, [7, 8], "cd", None)
    assert len(log) == 2


def test_no_tokens_are_no_news() -> None:
    log = filled((1, [5], "a"))
    assert not log.append(2, 1, [], "", None)
    assert log.read(0).attempt_number == 1


def test_text_without_a_token_has_no_place() -> None:
    log = filled((1, [5], "a"))
    with pytest.raises(OutputGap, match="text without"):
        log.append(1, 1, [], "lost", None)


def test_text_held_back_to_the_end_counts_as_text() -> None:
    log = filled((1, [5], "a"))
    log.close("bc")
    assert log.tail == "bc"
    assert log.text_length == 3


def test_text_is_counted_in_code_points() -> None:
    log = filled((1, [5], "é😀"), (1, [6], "z"))
    assert log.read(1).text_offset == 2


def test_log_probabilities_stay_with_their_tokens() -> None:
    log = OutputLog(limit=100)
    log.append(1, 0, [5], "a", [b"five"])
    log.append(1, 1, [6, 7], "bc", [b"six", b"seven"])
    assert log.read(1).logprobs == [b"six", b"seven"]


def test_log_probabilities_that_begin_late_leave_the_earlier_ones_open() -> None:
    log = OutputLog(limit=100)
    log.append(1, 0, [5], "a", None)
    log.append(2, 1, [6], "b", [b"six"])
    log.append(3, 2, [7], "c", None)
    assert log.read(0).logprobs == [b""]
    assert log.read(1).logprobs == [b"six"]
    assert log.read(2).logprobs == [b""]


def test_the_size_counts_text_and_log_probabilities() -> None:
    """The record of ended requests is bounded by it."""
    plain, talkative, heavy = OutputLog(limit=100), OutputLog(limit=100), OutputLog(limit=100)
    plain.append(1, 0, [5, 6], "ab", None)
    talkative.append(1, 0, [5, 6], "ab" + "\U0001f600" * 1_000, None)
    heavy.append(1, 0, [5, 6], "ab", [bytes(1_000), bytes(2_000)])
    assert talkative.size_bytes - plain.size_bytes >= 4_000
    assert heavy.size_bytes - plain.size_bytes == 3_000 + 2 * LOGPROB_BYTES
    before = plain.size_bytes
    plain.close("x" * 500)
    assert 400 <= plain.size_bytes - before <= 500, "and what was kept token by token is one text now"


def test_log_probabilities_must_be_as_many_as_the_tokens() -> None:
    log = OutputLog(limit=100)
    with pytest.raises(OutputGap, match="2 tokens with 1 log"):
        log.append(1, 0, [5, 6], "ab", [b"five"])
    assert len(log) == 0


@dataclass(frozen=True)
class Piece:
    attempt: int
    token_ids: list[int]
    text: str


PIECES = st.lists(
    st.builds(
        Piece,
        attempt=st.integers(1, 3),
        token_ids=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
        text=st.text(max_size=5),
    ),
    max_size=12,
)


def one_by_one(log: OutputLog, first_index: int, *, logprobs: list[bytes] | None = None) -> list[bool]:
    """The same token, as a token and as a list of one."""
    return [log.append_token(1, first_index, 9, "x"), log.append(1, first_index, [9], "x", logprobs)]


def test_a_token_that_came_before_is_dropped_when_it_comes_again() -> None:
    log = filled((1, [5], "a"), (1, [6], "b"))
    assert one_by_one(log, 1) == [False, False]
    assert log.text == "ab"


def test_a_token_that_does_not_join_is_refused() -> None:
    log = filled((1, [5], "a"))
    with pytest.raises(OutputGap, match="output is at 1"):
        log.append_token(1, 2, 9, "x")


def test_a_token_past_the_limit_is_refused() -> None:
    log = OutputLog(limit=2)
    for position in range(2):
        log.append_token(1, position, 9, "x")
    with pytest.raises(OutputGap, match="limit of 2"):
        log.append_token(1, 2, 9, "x")


def test_a_token_without_log_probabilities_leaves_its_place_open() -> None:
    log = OutputLog(limit=100)
    log.append(1, 0, [5], "a", [b"five"])
    log.append_token(1, 1, 6, "b")
    assert log.read(0).logprobs == [b"five", b""]


def test_the_text_of_a_closed_log_can_be_read_from_anywhere() -> None:
    log = filled((1, [5], "ab"), (1, [6], "c"))
    log.close("!")
    assert [log.read(start).text for start in range(2)] == ["abc", "c"]
    assert log.text == "abc!"


@settings(deadline=None)
@given(PIECES, st.lists(st.integers(0, 60)), st.integers(1, 5), st.booleans())
def test_from_any_position_a_reader_gets_the_rest_once_and_in_order(
    pieces: list[Piece], starts: list[int], chunk_tokens: int, closed: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output_log, "CHUNK_TOKENS", chunk_tokens)
        read_from_everywhere(pieces, starts, closed=closed)


def read_from_everywhere(pieces: list[Piece], starts: list[int], *, closed: bool) -> None:
    pieces.sort(key=lambda piece: piece.attempt)  # an older attempt says nothing more once a newer one began
    log = filled(*((p.attempt, p.token_ids, p.text) for p in pieces))
    if closed:
        log.close("")
    all_ids = [t for p in pieces for t in p.token_ids]
    attempts = [p.attempt for p in pieces for _ in p.token_ids]
    whole = "".join(p.text for p in pieces)
    for start in [0, *(s for s in starts if s < len(log))]:
        position, text, offset = start, "", None
        while position < len(log):
            piece = log.read(position)
            assert piece.first_index == position
            assert piece.token_ids, "a read gives something"
            offset = piece.text_offset if offset is None else offset
            assert piece.text_offset == offset + len(text)
            text += piece.text
            for token in piece.token_ids:
                assert (token, piece.attempt_number) == (all_ids[position], attempts[position])
                position += 1
        assert whole[(offset or 0) :] == text
