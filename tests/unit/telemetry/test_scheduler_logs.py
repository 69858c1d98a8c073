"""Scheduler's log lines carry the ids of the request and of its trace."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from sage_common.log_lines import JsonLines
from scheduler_svc.telemetry.logs import JSON_KEYS, TEXT, AboutFilter, configure_logging
from tests.support import http2
from tests.unit.transport.served import WITHIN_S, serving

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


async def test_a_header_that_is_no_text_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    """It may be a token, and gRPC writes it with a stack."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        configure_logging("INFO", json_lines=False)
        async with serving() as scheduler, asyncio.timeout(WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", scheduler.port)
            writer.write(http2.call("/grpc.health.v1.Health/Check", (b"authorization", b"Bearer \xff swordfish")))
            answer = b""
            while b"grpc-status" not in answer:
                answer += await reader.read(4096)
            writer.close()
        logging.getLogger("x").info("the end")
        root.handlers[0].flush()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    written = capfd.readouterr().err
    assert "the end" in written
    assert "swordfish" not in written
