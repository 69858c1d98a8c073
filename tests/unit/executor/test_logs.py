"""Log lines carry who and what they are about."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from executor_svc.runtime.log_context import ABOUT, EXTRA, about
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.telemetry.logs import JSON_KEYS, TEXT, AboutFilter
from sage_common.log_lines import JsonLines


def record(message: str = "hello %s", *arguments: object, failed: bool = False) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise ValueError("inside")
        except ValueError:
            error = sys.exc_info()
    made = logging.LogRecord("executor_svc.x", logging.INFO, "x.py", 1, message, arguments or ("you",), error)
    assert AboutFilter("gpu-7").filter(made)
    return made


async def test_json_lines_name_instance_attempt_and_request() -> None:
    ABOUT.set(about(AttemptId(7, 12), "request-9")[EXTRA])
    line = json.loads(JsonLines(*JSON_KEYS).format(record()))
    assert line["message"] == "hello you"
    assert (line["instance"], line["attempt"], line["request"]) == ("gpu-7", "7/12", "request-9")


async def test_outside_an_attempt_nothing_is_made_up() -> None:
    line = json.loads(JsonLines(*JSON_KEYS).format(record(failed=True)))
    assert "attempt" not in line
    assert "ValueError: inside" in line["exception"]


async def test_what_a_line_is_given_goes_before_what_its_task_is_about() -> None:
    ABOUT.set(about(AttemptId(7, 12), "request-9")[EXTRA])
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    made = record()
    vars(made).update(about(AttemptId(7, 13), "request-10", {"traceparent": f"00-{trace}-{span}-01"}))
    assert AboutFilter("gpu-7").filter(made)
    line = json.loads(JsonLines(*JSON_KEYS).format(made))
    assert (line["attempt"], line["request"]) == ("7/13", "request-10")
    assert (line["trace_id"], line["span_id"]) == (trace, span)
    vars(made).update(about(AttemptId(7, 14)))
    assert AboutFilter("gpu-7").filter(made)
    assert logging.Formatter(TEXT).format(made).endswith("executor_svc.x [7/14]: hello you")


@pytest.mark.parametrize("inside", [True, False])
async def test_text_lines_read_well(inside: bool) -> None:
    if inside:
        ABOUT.set(about(AttemptId(7, 12), "request-9")[EXTRA])
    line = logging.Formatter(TEXT).format(record())
    assert line.endswith("executor_svc.x [request-9 7/12]: hello you" if inside else "executor_svc.x: hello you")
