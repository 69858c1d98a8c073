"""Scheduler's log lines carry the ids of the request and of its trace."""

from __future__ import annotations

import json
import logging

from sage_common.log_lines import JsonLines
from scheduler_svc.telemetry.logs import JSON_KEYS, TEXT, AboutFilter

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def record(**extra: str) -> logging.LogRecord:
    made = logging.LogRecord("scheduler_svc.x", logging.INFO, "x.py", 1, "hello", (), None)
    vars(made).update(extra)
    assert AboutFilter().filter(made)
    return made


def test_a_line_about_a_request_says_which_and_in_which_trace() -> None:
    about = {"request": "blue/7", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    line = json.loads(JsonLines(*JSON_KEYS).format(record(**about)))
    assert (line["message"], line["request"]) == ("hello", "blue/7")
    assert (line["trace_id"], line["span_id"]) == (TRACE, SPAN)
    assert logging.Formatter(TEXT).format(record(**about)).endswith(f"scheduler_svc.x: hello [trace {TRACE}]")


def test_any_other_line_makes_nothing_up() -> None:
    line = json.loads(JsonLines(*JSON_KEYS).format(record()))
    assert not {"request", "trace_id", "span_id"} & line.keys()
    assert logging.Formatter(TEXT).format(record()).endswith("scheduler_svc.x: hello")
