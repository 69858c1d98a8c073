"""Reading traces, changing their rate and giving them targets."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import pytest

from sage_simulator.trace_changes import at_rate, with_default_targets
from sage_simulator.trace_file import TraceError, read_trace_file
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.request import Priority

own_reader = pytest.mark.skipif(
    util.find_spec("sage_simulator.traces") is not None, reason="sage_simulator.traces reads the files, and tests it"
)


def at(*arrivals: float) -> list[TracedRequest]:
    return [TracedRequest(arrival_s=each, prompt_tokens=1, output_tokens=1) for each in arrivals]


@own_reader
def test_a_line_is_a_request(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(
        '{"arrival_s": 2.5, "prompt_tokens": 10, "output_tokens": 3}\n\n'
        '{"arrival_s": 0, "prompt_tokens": 600, "output_tokens": 1, "priority": "high", "block_hashes": [4, 5]}\n'
    )
    assert read_trace_file(file) == [
        TracedRequest(arrival_s=0.0, prompt_tokens=600, output_tokens=1, priority=Priority.HIGH, block_hashes=(4, 5)),
        TracedRequest(arrival_s=2.5, prompt_tokens=10, output_tokens=3),
    ]


@own_reader
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "no request"),
        ("{", "trace:1: no JSON object"),
        ("[1]", "trace:1: no JSON object"),
        ('{"arrival_s": 1}', "missing: prompt_tokens, output_tokens"),
        ('{"arrival_s": 1, "prompt_tokens": 1, "output_tokens": 1, "colour": 1}', "unknown keys: colour"),
        ('{"arrival_s": 1, "prompt_tokens": 0, "output_tokens": 1}', "prompt_tokens: 0 is not at least 1"),
        ('{"arrival_s": -1, "prompt_tokens": 1, "output_tokens": 1}', "arrival_s: -1"),
        ('{"arrival_s": 1, "prompt_tokens": 1, "output_tokens": 1, "priority": "top"}', "TOP"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "trace"
    file.write_text(line)
    with pytest.raises(TraceError, match=said):
        read_trace_file(file)


def test_a_rate_stretches_the_arrivals() -> None:
    assert [each.arrival_s for each in at_rate(at(1.0, 2.0, 5.0), 4.0)] == [1.0, 1.125, 1.5]
    assert at_rate(at(3.0), 4.0) == at(3.0)


def test_requests_at_one_time_have_no_rate() -> None:
    with pytest.raises(TraceError, match="at once"):
        at_rate(at(1.0, 1.0), 4.0)


def test_default_targets_leave_stated_ones_alone() -> None:
    own = TracedRequest(arrival_s=0.0, prompt_tokens=1, output_tokens=1, deadline_s=3.0)
    [given, kept] = with_default_targets([*at(0.0), own], ttft_s=2.0, tpot_s=None)
    assert (given.ttft_target_s, given.tpot_target_s) == (2.0, None)
    assert kept is own
