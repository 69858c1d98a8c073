"""The simulator's own format: what is written comes back."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import dump, load, read_trace
from scheduler_svc.domain.request import Priority
from tests.unit.simulator.trace_files import assert_broken, json_lines, written

HEADER = {"format": "sage_trace", "version": 1}
REQUEST = {"arrival_s": 1.5, "prompt_tokens": 100, "output_tokens": 5}

seconds = st.floats(min_value=0, max_value=1e9)
names = st.text(max_size=5)
requests = st.builds(
    TracedRequest,
    arrival_s=seconds,
    prompt_tokens=st.integers(64, 10**6),
    output_tokens=st.integers(1, 10**6),
    block_hashes=st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple),
    block_tokens=st.integers(1, 16),
    max_tokens=st.none() | st.integers(1, 10**6),
    priority=st.sampled_from(Priority),
    ttft_target_s=st.none() | seconds,
    tpot_target_s=st.none() | seconds,
    deadline_s=st.none() | seconds,
    tenant=names,
    session=names,
    model=names,
    cancel_after_s=st.none() | seconds,
)


@given(st.lists(requests, min_size=1, max_size=5))
def test_a_trace_comes_back_as_it_was_written(trace: list[TracedRequest]) -> None:
    trace.sort(key=lambda request: request.arrival_s)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        dump(trace, path)
        assert load(path) == trace
        assert read_trace(path) == trace


def test_a_field_at_its_default_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    dump([TracedRequest(arrival_s=0.0, prompt_tokens=1, output_tokens=2, priority=Priority.HIGH)], path)
    assert path.read_text().splitlines()[1] == (
        '{"arrival_s":0.0,"prompt_tokens":1,"output_tokens":2,"priority":"HIGH"}'
    )


def test_an_infinite_time_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        dump([TracedRequest(arrival_s=float("inf"), prompt_tokens=1, output_tokens=2)], tmp_path / "trace.jsonl")


def test_requests_logged_out_of_order_are_sorted(tmp_path: Path) -> None:
    path = written(tmp_path, json_lines(HEADER, REQUEST, REQUEST | {"arrival_s": 0.5}))
    assert [request.arrival_s for request in load(path)] == [0.5, 1.5]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"arrival_s": -1}, "arrival_s"),
        ({"arrival_s": None}, "arrival_s"),
        ({"prompt_tokens": 0}, "prompt_tokens"),
        ({"output_tokens": "5"}, "output_tokens"),
        ({"block_hashes": [1], "block_tokens": 101}, "block_hashes"),
        ({"block_tokens": 0}, "block_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"priority": "URGENT"}, "priority"),
        ({"ttft_target_s": "soon"}, "ttft_target_s"),
        ({"tenant": 4}, "tenant"),
        ({"prompt": "hello"}, "prompt"),
    ],
)
def test_a_broken_request_is_named_by_line_and_field(tmp_path: Path, changed: dict[str, Any], field: str) -> None:
    path = written(tmp_path, json_lines(HEADER, REQUEST, REQUEST | changed))
    assert_broken(lambda: load(path), line=3, field=field)


@pytest.mark.parametrize(
    ("header", "field"),
    [({"format": "other", "version": 1}, "format"), ({"format": "sage_trace", "version": 2}, "version")],
)
def test_another_header_is_an_error(tmp_path: Path, header: dict[str, Any], field: str) -> None:
    path = written(tmp_path, json_lines(header, REQUEST))
    assert_broken(lambda: load(path), line=1, field=field)
