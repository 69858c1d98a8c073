"""Runs of pytest that share a room leave no file out and run none twice."""

from __future__ import annotations

import pytest

from tests.support.parts_of_a_room import number_and_parts, part_of

FILES = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"]


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_each_file_is_in_one_part(parts: int) -> None:
    found = [part_of(FILES, number, parts) for number in range(1, parts + 1)]
    assert sorted(file for part in found for file in part) == sorted(set(FILES))


def test_parts_have_about_as_many_tests_each() -> None:
    assert part_of(FILES, 1, 2) == {"a", "d"}
    assert part_of(FILES, 2, 2) == {"b", "c"}


def test_the_order_in_which_files_are_found_changes_nothing() -> None:
    assert part_of(reversed(FILES), 1, 2) == part_of(FILES, 1, 2)


def test_a_part_is_a_number_of_a_number() -> None:
    assert number_and_parts("2/3") == (2, 3)


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b"])
def test_what_names_no_part(text: str) -> None:
    with pytest.raises(ValueError, match="is written like 1/2"):
        number_and_parts(text)
