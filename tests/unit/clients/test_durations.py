"""Lengths of time, as callers write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sage_client import InvalidRequestError
from sage_client._durations import duration, seconds_of, timeout_of


@pytest.mark.parametrize(
    ("given", "expected_s"),
    [
        (10, 10.0),
        (0.25, 0.25),
        ("10s", 10.0),
        ("500ms", 0.5),
        ("1.5 m", 90.0),
        ("2h", 7_200.0),
        ("3", 3.0),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_a_length_of_time_is_read_in_seconds(given: Any, expected_s: float) -> None:
    assert seconds_of(given) == pytest.approx(expected_s)
    assert duration(given).ToNanoseconds() == round(expected_s * 1e9)


@pytest.mark.parametrize("given", ["", "soon", "10 seconds", "-1s", "1d", "1e3s"])
def test_a_text_that_is_no_length_of_time_is_refused_with_examples(given: str) -> None:
    with pytest.raises(ValueError, match=r"not a length of time such as 500ms, 10s"):
        seconds_of(given)


def test_a_call_may_take_as_long_as_it_says_or_a_little_more_than_its_deadline() -> None:
    assert timeout_of("2s", "1h", default_s=9.0, grace_s=1.0) == 2.0
    assert timeout_of(None, "1m", default_s=9.0, grace_s=1.0) == 61.0
    assert timeout_of(None, None, default_s=9.0, grace_s=1.0) == 9.0


@pytest.mark.parametrize(("timeout", "deadline", "field"), [("x", None, "timeout"), (None, "x", "deadline")])
def test_a_timeout_that_is_no_length_of_time_is_named(timeout: Any, deadline: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field) as caught:
        timeout_of(timeout, deadline, default_s=9.0, grace_s=1.0)
    assert [each.field for each in caught.value.violations] == [field]
