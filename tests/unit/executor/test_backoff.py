"""Waits between tries."""

from __future__ import annotations

import random

from executor_svc.runtime.session.backoff import Backoff


def test_waits_between_tries_double_up_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff(first_s=1.0, most_s=6.0, source=random.Random(1))
    waits = [backoff.next() for _ in range(6)]
    for wait, most in zip(waits, (1, 2, 4, 6, 6, 6), strict=True):
        assert most / 2 <= wait <= most
    backoff.reset()
    assert backoff.next() <= 1.0
