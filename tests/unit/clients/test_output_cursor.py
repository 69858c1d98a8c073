"""Each token once, in order, whatever is sent twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_client import Attempt, ProtocolError, TokenLogprob, Tokens
from sage_client._output_cursor import OutputCursor


def tokens(first: int, ids: tuple[int, ...], offset: int, text: str, **more: object) -> Tokens:
    return Tokens(
        attempt=Attempt(epoch=1, number=1),
        choice=0,
        first_index=first,
        token_ids=ids,
        text_offset=offset,
        text=text,
        logprobs=more.get("logprobs", ()),  # type: ignore[arg-type]
    )


def test_what_is_new_passes_as_it_is() -> None:
    event = tokens(0, (1, 2), 0, "ab")

    assert OutputCursor().advance(event) is event


def test_what_was_seen_is_cut_off() -> None:
    cursor = OutputCursor()
    cursor.advance(tokens(0, (1, 2), 0, "ab"))
    logprobs = tuple((TokenLogprob(token_id=i, logprob=-1.0, rank=1),) for i in (2, 3))

    rest = cursor.advance(tokens(1, (2, 3), 1, "bc", logprobs=logprobs))

    assert rest == tokens(2, (3,), 2, "c", logprobs=logprobs[1:])


def test_what_was_seen_whole_is_nothing() -> None:
    cursor = OutputCursor(next_index=5, next_offset=9)

    assert cursor.advance(tokens(1, (1, 2), 0, "abc")) is None
    assert (cursor.next_index, cursor.next_offset) == (5, 9)


def test_text_may_come_after_its_tokens() -> None:
    cursor = OutputCursor()
    cursor.advance(tokens(0, (1,), 0, ""))

    assert cursor.advance(tokens(1, (), 0, "é")) == tokens(1, (), 0, "é")
    assert cursor.advance(tokens(1, (), 0, "é")) is None


def test_missing_tokens_are_refused() -> None:
    with pytest.raises(ProtocolError, match="tokens 0 to 2 are missing"):
        OutputCursor().advance(tokens(3, (1,), 0, "a"))


def test_missing_text_is_refused() -> None:
    with pytest.raises(ProtocolError, match="text 0 to 1 is missing"):
        OutputCursor().advance(tokens(0, (1,), 2, "a"))


def test_a_stream_joined_later_takes_its_first_texts_place() -> None:
    cursor = OutputCursor(next_index=4, next_offset=None)
    cursor.advance(tokens(4, (1,), 17, "abc"))

    assert cursor.next_offset == 20


@given(
    length=st.integers(1, 30),
    cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8),
    step=st.integers(1, 5),
)
def test_any_overlap_gives_each_token_once(length: int, cuts: list[tuple[int, int]], step: int) -> None:
    """Streams that begin anywhere before the position and end anywhere, then one to the end."""
    cursor, ids, text = OutputCursor(), list[int](), ""
    for back, count in [*cuts, (0, length)]:
        start = max(cursor.next_index - back, 0)
        for first in range(start, min(start + count, length), step):
            part = tuple(range(first, min(first + step, length)))
            event = cursor.advance(tokens(first, part, 3 * first, "".join(f"{i:03}" for i in part)))
            if event is not None:
                assert event.first_index == len(ids)
                assert event.text_offset == len(text)
                ids += event.token_ids
                text += event.text
    remaining = tuple(range(len(ids), length))
    event = cursor.advance(tokens(len(ids), remaining, 3 * len(ids), "".join(f"{i:03}" for i in remaining)))
    ids += event.token_ids if event else ()
    text += event.text if event else ""

    assert ids == list(range(length))
    assert text == "".join(f"{i:03}" for i in range(length))
