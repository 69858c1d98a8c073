"""Azure's and BurstGPT's CSV traces."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import read_trace
from tests.unit.simulator.trace_files import AZURE, BURSTGPT, assert_broken, written


def test_an_azure_trace_begins_at_zero_and_counts_seconds(tmp_path: Path) -> None:
    rows = "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:16:00.1805900,396,109\r\n"
    trace = read_trace(written(tmp_path, AZURE + rows))
    assert [(request.prompt_tokens, request.output_tokens) for request in trace] == [(374, 44), (396, 109)]
    assert trace[0] == TracedRequest(arrival_s=0.0, prompt_tokens=374, output_tokens=44)
    assert trace[1].arrival_s == pytest.approx(13.5, abs=1e-6)


def test_a_time_with_an_offset_is_read(tmp_path: Path) -> None:
    rows = "2024-05-10 00:00:00+00:00,1,1\n2024-05-10 02:00:01+02:00,2,2\n"
    assert [request.arrival_s for request in read_trace(written(tmp_path, AZURE + rows))] == [0.0, 1.0]


def test_rows_out_of_order_are_sorted_and_those_of_one_moment_keep_their_order(tmp_path: Path) -> None:
    rows = "2024-05-10 00:00:05,1,1\n2024-05-10 00:00:02,2,2\n2024-05-10 00:00:05,3,3\n"
    trace = read_trace(written(tmp_path, AZURE + rows))
    assert [(request.arrival_s, request.prompt_tokens) for request in trace] == [(0.0, 2), (3.0, 1), (3.0, 3)]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    text = "GeneratedTokens,Other,TIMESTAMP,ContextTokens\n7,x,2024-05-10 00:00:00,9\n"
    [request] = read_trace(written(tmp_path, text))
    assert (request.prompt_tokens, request.output_tokens) == (9, 7)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("yesterday,1,1", "TIMESTAMP"),
        (",1,1", "TIMESTAMP"),
        ("2024-05-10 00:00:00,,1", "ContextTokens"),
        ("2024-05-10 00:00:00,0,1", "ContextTokens"),
        ("2024-05-10 00:00:00,-3,1", "ContextTokens"),
        ("2024-05-10 00:00:00,1.5,1", "ContextTokens"),
        ("2024-05-10 00:00:00,1,many", "GeneratedTokens"),
        ("2024-05-10 00:00:00,1,99999999999", "GeneratedTokens"),
        ("2024-05-10 00:00:00,1", None),
        ("2024-05-10 00:00:00,1,2,3", None),
        ('2024-05-10 00:00:00,"1,2', None),
    ],
)
def test_a_broken_row_is_named_by_line_and_field(tmp_path: Path, row: str, field: str | None) -> None:
    path = written(tmp_path, AZURE + "2024-05-10 00:00:00,1,1\n\n" + row + "\n")
    assert_broken(lambda: read_trace(path), line=4, field=field)


def test_a_header_without_a_needed_column_names_it(tmp_path: Path) -> None:
    path = written(tmp_path, "TIMESTAMP,ContextTokens\n")
    assert_broken(lambda: read_trace(path, "azure"), line=1, field="GeneratedTokens")


def test_burstgpt_leaves_failed_requests_out_and_keeps_sessions(tmp_path: Path) -> None:
    header = BURSTGPT.replace(",Log Type", ",Log Type,Session ID")
    rows = "5,ChatGPT,472,18,490,Conversation log,a\n45,GPT-4,10,0,10,API log,\n118.5,GPT-4,1087,230,1317,API log,\n"
    first, second = read_trace(written(tmp_path, header + rows))
    assert (first.arrival_s, first.prompt_tokens, first.output_tokens, first.session) == (0.0, 472, 18, "a")
    assert (second.arrival_s, second.prompt_tokens, second.output_tokens, second.session) == (113.5, 1087, 230, "")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("soon,ChatGPT,1,1,2,API log", "Timestamp"),
        ("nan,ChatGPT,1,1,2,API log", "Timestamp"),
        ("-1,ChatGPT,1,1,2,API log", "Timestamp"),
        ("1,ChatGPT,x,1,2,API log", "Request tokens"),
        ("1,ChatGPT,1,,2,API log", "Response tokens"),
    ],
)
def test_a_broken_burstgpt_row_is_named(tmp_path: Path, row: str, field: str) -> None:
    path = written(tmp_path, BURSTGPT + row + "\n")
    assert_broken(lambda: read_trace(path), line=2, field=field)
