"""Texts that others wrote are shortened or refused."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.transport.clipping import REPORT_BYTES, reported, stated_reason


def test_a_report_is_shortened_and_a_callers_reason_is_refused() -> None:
    long = "\N{SNOWMAN}" * REPORT_BYTES
    assert len(reported(long).encode()) <= REPORT_BYTES
    assert reported("short") == stated_reason("short") == "short"
    with pytest.raises(InvalidRequest, match=r"^reason: has"):
        stated_reason(long)
