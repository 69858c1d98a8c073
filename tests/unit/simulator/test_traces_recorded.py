"""A recording as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import read_trace
from sage_simulator.traces.recording.log_reader import is_log, read_log
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.request import Priority
from tests.unit.simulator.trace_files import assert_broken, json_lines, written

HEADER = {"format": "sage_log", "version": 1, "began": "2026-01-01T00:00:00+00:00", "software_version": "1", "part": 1}
REQUEST = {
    "kind": "request",
    "arrival_s": 1.5,
    "model": "m",
    "prompt_tokens": 100,
    "output_tokens": 5,
    "max_tokens": 50,
    "priority": "HIGH",
    "end": "finished",
    "first_token_s": 1.7,
    "last_token_s": 2.1,
    "ended_s": 2.2,
}
INSTANCE = {
    "kind": "instance",
    "at_s": 0.5,
    "instance": "e1",
    "model": "m",
    "state": "ready",
    "role": "general",
    "price_per_hour": 2.0,
    "max_running": 8,
}
LOAD = {"kind": "load", "at_s": 1.0, "instance": "e1", "heartbeats": 3, "samples": [[10, 2, 3, 400, 0.02]]}


def test_a_recording_is_recognised_and_read_as_a_trace(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        json_lines(
            HEADER,
            INSTANCE,
            LOAD,
            REQUEST | {"arrival_s": 3.0, "tenant": "a", "session": "b", "deadline_s": 9.0},
            REQUEST | {"block_hashes": [7, 8], "block_tokens": 32, "tpot_target_s": 0.1},
        ),
    )
    common = {"prompt_tokens": 100, "output_tokens": 5, "max_tokens": 50, "priority": Priority.HIGH, "model": "m"}
    assert is_log(path)
    assert read_trace(path) == [
        TracedRequest(
            arrival_s=0.0,
            block_hashes=(7, 8),
            block_tokens=32,
            tpot_target_s=0.1,
            tenant="",
            **common,  # type: ignore[arg-type]
        ),
        TracedRequest(
            arrival_s=1.5,
            block_tokens=1,
            tenant="a",
            session="b",
            deadline_s=9.0,
            **common,  # type: ignore[arg-type]
        ),
    ]


@pytest.mark.parametrize(
    ("end", "arrived", "replayed"),
    [
        ("expired", 0, 20),  # the median of those that finished
        ("cancelled", 3, 20),
        ("failed", 30, 30),
        ("finished", 2, 2),
    ],
)
def test_the_output_of_a_request_that_did_not_finish(tmp_path: Path, end: str, arrived: int, replayed: int) -> None:
    others = [REQUEST | {"arrival_s": 2.0, "output_tokens": n} for n in (19, 20, 21)]
    asked = REQUEST | {"end": end, "output_tokens": arrived}
    path = written(tmp_path, json_lines(HEADER, asked, *others, *others))
    assert read_trace(path)[0].output_tokens == replayed


def test_the_caller_of_a_cancelled_request_leaves_when_it_did(tmp_path: Path) -> None:
    path = written(tmp_path, json_lines(HEADER, REQUEST, REQUEST | {"end": "cancelled", "ended_s": 4.5}))
    assert [each.cancel_after_s for each in read_trace(path)] == [None, 3.0]


def test_what_the_lines_hold(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, json_lines(HEADER, INSTANCE, INSTANCE | {"state": "lost"}, LOAD, REQUEST)))
    assert [each.state for each in log.latest_instances()] == ["lost"]
    assert log.loads[0].samples == (
        IterationSample(prefill_tokens=10, decode_tokens=2, running=3, kv_used_tokens=400, elapsed_s=0.02),
    )
    [request] = log.requests
    assert request.ttft_s == pytest.approx(0.2)
    assert request.tpot_s == pytest.approx(0.1)
    assert log.models == ["m"]


def test_files_of_one_recording_may_follow_one_another(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, json_lines(HEADER, REQUEST, HEADER | {"part": 2}, REQUEST)))
    assert len(log.requests) == 2


def test_what_a_later_release_adds_is_passed_over(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, json_lines(HEADER, {"kind": "new"}, REQUEST | {"new": 1})))
    assert len(log.requests) == 1


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (REQUEST | {"prompt_tokens": 0}, "prompt_tokens"),
        (REQUEST | {"output_tokens": -1}, "output_tokens"),
        (REQUEST | {"priority": "URGENT"}, "priority"),
        (REQUEST | {"block_hashes": [1], "block_tokens": 101}, "block_hashes"),
        (REQUEST | {"first_token_s": "soon"}, "first_token_s"),
        (INSTANCE | {"max_running": 1.5}, "max_running"),
        (LOAD | {"samples": [[1, 2, 3]]}, "samples"),
        (LOAD | {"samples": [[1, 2, 3, 4, -0.1]]}, "samples"),
        (LOAD | {"samples": 3}, "samples"),
        (HEADER | {"began": "later"}, "began"),
        (HEADER | {"version": 2}, "version"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: dict[str, Any], field: str) -> None:
    path = written(tmp_path, json_lines(HEADER, REQUEST, line))
    assert_broken(lambda: read_log(path), line=3, field=field)


def test_an_empty_file_is_no_recording(tmp_path: Path) -> None:
    path = written(tmp_path, "\n")
    assert not is_log(path)
    assert_broken(lambda: read_log(path), line=None, field=None)
