"""Stop strings: the first that completes wins, and only what may still become one is held back."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from executor_svc.runtime.text.stop_strings import StopStrings

stops_of_few_letters = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)
text_of_few_letters = st.text("abc", max_size=40)


def first_stop(text: str, stops: Sequence[str], armed_from: int = 0) -> tuple[int, str] | None:
    """By trying every end: where the first one completes, the longest of those that complete there."""
    for end in range(armed_from + 1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return end, max(complete, key=len)
    return None


def may_become_a_stop(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that begins a stop string."""
    return max(
        (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])),
        default=0,
    )


@given(text_of_few_letters, stops_of_few_letters, st.booleans())
@example("aab", ["ab"], False)
@example("abab", ["abac", "b"], False)
def test_the_first_stop_string_that_completes_ends_the_text(text: str, stops: list[str], include: bool) -> None:
    watched = StopStrings(stops, include_in_output=include)
    got = ""
    for char in text:
        piece, stop = watched.push(char, armed=True)
        got += piece
        if stop is not None:
            end, expected = first_stop(text, stops) or (0, "")
            assert stop == expected
            assert got == text[: end if include else end - len(stop)]
            return
    assert first_stop(text, stops) is None
    assert got + watched.release() == text


@given(text_of_few_letters, stops_of_few_letters)
def test_nothing_is_held_back_but_what_may_become_a_stop_string(text: str, stops: list[str]) -> None:
    watched = StopStrings(stops, include_in_output=False)
    seen = got = ""
    for char in text:
        seen += char
        piece, stop = watched.push(char, armed=True)
        got += piece
        if stop is not None:
            return
        assert got == seen[: len(seen) - may_become_a_stop(seen, stops)]


@given(text_of_few_letters, stops_of_few_letters)
def test_nothing_is_held_back_where_the_stop_string_is_part_of_the_text(text: str, stops: list[str]) -> None:
    watched = StopStrings(stops, include_in_output=True)
    got = ""
    for index, char in enumerate(text):
        piece, stop = watched.push(char, armed=True)
        got += piece
        assert got == text[: index + 1]
        if stop is not None:
            return


@given(text_of_few_letters, stops_of_few_letters, st.integers(0, 10))
@example("aaa", ["aa"], 2)  # overlaps one that did not count
@example("abab", ["ab"], 1)
def test_a_stop_string_counts_from_the_text_on_in_which_it_is_armed(text: str, stops: list[str], quiet: int) -> None:
    watched = StopStrings(stops, include_in_output=False)
    for index, char in enumerate(text):
        _, stop = watched.push(char, armed=index >= quiet)
        if stop is not None:
            assert (index + 1, stop) == first_stop(text, stops, armed_from=quiet)
            return
    assert first_stop(text, stops, armed_from=quiet) is None
