"""The audit log: lines for actions and refusals, and a bound on those about refusals."""

from __future__ import annotations

import logging

import pytest

from scheduler_svc.access.audit import LOGGER, REFUSALS_AT_ONCE, Audit
from scheduler_svc.telemetry.logs import configure_logging


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_action_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        Audit().action("carol", "ipv4:1.2.3.4:5", "/x.AdminService/SetPolicy", 'policy: "fifo"', "OK")
    assert caplog.messages == ["action: SetPolicy by 'carol' from ipv4:1.2.3.4:5: OK: policy: \"fifo\""]


def test_what_a_caller_writes_stays_on_the_line_and_is_short(caplog: pytest.LogCaptureFixture) -> None:
    Audit().refused("a\nb", "peer", "/x/Generate", "tenant:\nx\x1b[2J" + "y" * 10_000)
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line) < 700


def test_refusals_have_a_bounded_number_of_lines_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    audit = Audit(time)
    for _ in range(REFUSALS_AT_ONCE + 200):
        audit.refused("x", "peer", "/x/Generate", "no")
    assert len(caplog.messages) == REFUSALS_AT_ONCE
    time.now = 1.0
    audit.refused("x", "peer", "/x/Generate", "no")
    assert caplog.messages[-1].endswith("(200 more refusals before this one had no line)")
    audit.refused("x", "peer", "/x/Generate", "no")
    assert caplog.messages[-1].endswith(": no")


def test_the_audit_log_is_written_whatever_the_level_is() -> None:
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level
    try:
        configure_logging("ERROR", json_lines=False)
        assert logging.getLogger(LOGGER).isEnabledFor(logging.INFO)
        assert not logging.getLogger("scheduler_svc").isEnabledFor(logging.WARNING)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
