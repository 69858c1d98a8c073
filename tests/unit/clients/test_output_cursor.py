"""Each token once, in order, whatever is sent twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_client import ProtocolError
from sage_client._output_cursor import OutputCursor


def test_what_is_new_passes_as_it_is() -> None:
    cursor = OutputCursor()

    assert cursor.advance(0, [1, 2], 0, "ab") == ([1, 2], "ab")
    assert (cursor.next_index, cursor.next_offset) == (2, 2)


def test_what_was_seen_is_cut_off() -> None:
    cursor = OutputCursor()
    cursor.advance(0, [1, 2], 0, "ab")

    assert cursor.advance(1, [2, 3], 1, "bc") == ([3], "c")


def test_what_was_seen_whole_is_nothing() -> None:
    cursor = OutputCursor(next_index=5, next_offset=9)

    assert cursor.advance(1, [1, 2], 0, "abc") == ([], "")
    assert (cursor.next_index, cursor.next_offset) == (5, 9)


def test_text_may_come_after_its_tokens() -> None:
    cursor = OutputCursor()
    cursor.advance(0, [1], 0, "")

    assert cursor.advance(1, [], 0, "é") == ([], "é")
    assert cursor.advance(1, [], 0, "é") == ([], "")


def test_missing_tokens_are_refused() -> None:
    with pytest.raises(ProtocolError, match="tokens 0 to 2 are missing"):
        OutputCursor().advance(3, [1], 0, "a")


def test_missing_text_is_refused() -> None:
    with pytest.raises(ProtocolError, match="text 0 to 1 is missing"):
        OutputCursor().advance(0, [1], 2, "a")


def test_a_stream_joined_later_takes_its_first_texts_place() -> None:
    cursor = OutputCursor(next_index=4, next_offset=None)
    cursor.advance(4, [1], 17, "abc")

    assert cursor.next_offset == 20


def test_a_source_tells_where_it_begins() -> None:
    cursor = OutputCursor(next_index=4, next_offset=9)

    assert cursor.begin(4, 9) == (0, 0)
    assert cursor.begin(1, 2) == (3, 7)
    with pytest.raises(ProtocolError, match="tokens 4 to 5 are missing"):
        cursor.begin(6, 9)
    with pytest.raises(ProtocolError, match="text 9 to 10 is missing"):
        cursor.begin(4, 11)


def test_the_source_of_a_stream_joined_later_tells_its_first_texts_place() -> None:
    cursor = OutputCursor(next_index=4, next_offset=None)

    assert cursor.begin(4, 17) == (0, 0)
    assert cursor.next_offset == 17


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
            part = list(range(first, min(first + step, length)))
            new_ids, new_text = cursor.advance(first, part, 3 * first, "".join(f"{i:03}" for i in part))
            ids += new_ids
            text += new_text
            assert (cursor.next_index, cursor.next_offset) == (len(ids), len(text))
    remaining = list(range(len(ids), length))
    new_ids, new_text = cursor.advance(len(ids), remaining, 3 * len(ids), "".join(f"{i:03}" for i in remaining))
    ids += new_ids
    text += new_text

    assert ids == list(range(length))
    assert text == "".join(f"{i:03}" for i in range(length))
