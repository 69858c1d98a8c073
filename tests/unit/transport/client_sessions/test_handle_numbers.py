"""Handles are used once, however they are counted, and what is remembered of them is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.transport.client_sessions import handle_numbers
from scheduler_svc.transport.client_sessions.handle_numbers import HandleNumbers


@given(st.lists(st.integers(1, 60)))
def test_each_number_is_good_once(numbers: list[int]) -> None:
    used: set[int] = set()
    seen = HandleNumbers()
    for number in numbers:
        assert bool(seen.why_not(number)) == (number in used)
        if number not in used:
            seen.use(number)
            used.add(number)


def test_zero_is_no_handle() -> None:
    assert HandleNumbers().why_not(0) == "is 0"


def test_gaps_are_bounded_and_counting_up_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle_numbers, "RANGES_LIMIT", 3)
    seen = HandleNumbers()
    for number in (10, 20, 30):
        seen.use(number)
    assert "gap" in seen.why_not(40)
    for number in range(31, 5_000):
        assert seen.why_not(number) == ""
        seen.use(number)
    assert "used before" in seen.why_not(4_000)
