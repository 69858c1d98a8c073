"""Sparklines: a bar per value, the largest of several where there is no room, a blank where nothing was measured."""

from __future__ import annotations

from sagectl.output.sparkline import sparkline


def test_the_highest_bar_is_the_largest_value() -> None:
    assert sparkline([0, 1, 2, 4, 8], 10) == "▁▂▃▅█"


def test_no_value_is_a_blank_and_zero_is_the_lowest_bar() -> None:
    assert sparkline([None, 0, 3], 10) == " ▁█"
    assert sparkline([0, 0], 10) == "▁▁"
    assert sparkline([], 10) == ""


def test_several_values_share_a_bar_where_there_is_no_room_and_the_latest_bar_is_whole() -> None:
    assert sparkline([8, 0, 0, 4, 0], 3) == "█▁▅"
    assert len(sparkline(list(range(61)), 20)) <= 20
    assert sparkline([1, 2], 0) == ""
