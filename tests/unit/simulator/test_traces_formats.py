"""The choice of a format, and files that have none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sage_simulator.traces import FORMATS, read_trace, source_lines
from tests.unit.simulator.trace_files import AZURE, BURSTGPT, assert_broken, json_lines, written

MOONCAKE = {"timestamp": 0, "input_length": 5, "output_length": 5}
EXAMPLES = {
    "azure": AZURE + "2024-05-10 00:00:00,5,5\n",
    "burstgpt": BURSTGPT + "1,GPT-4,5,5,10,API log\n",
    "mooncake": json_lines(MOONCAKE),
    "aiperf": json_lines(MOONCAKE | {"session_id": "a"}),
    "sage": json_lines(
        {"format": "sage_trace", "version": 1}, {"arrival_s": 0.0, "prompt_tokens": 5, "output_tokens": 5}
    ),
    "recorded": json_lines(
        {"format": "sage_log", "version": 1, "began": "2026-01-01T00:00:00+00:00"},
        {
            "kind": "request",
            "arrival_s": 7.0,
            "model": "m",
            "prompt_tokens": 5,
            "output_tokens": 5,
            "max_tokens": 5,
            "priority": "NORMAL",
            "end": "finished",
            "ended_s": 9.0,
        },
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_content_tells_the_format(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, EXAMPLES[name])
    [request] = read_trace(path)
    assert (request.arrival_s, request.prompt_tokens, request.output_tokens) == (0.0, 5, 5)
    assert read_trace(path, name) == [request]


def test_a_byte_order_mark_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    assert len(read_trace(written(tmp_path, "\ufeff" + EXAMPLES["azure"] + "\n\n"))) == 1


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'splitwise'.*azure.*mooncake"):
        read_trace(written(tmp_path, EXAMPLES["azure"]), "splitwise")


@pytest.mark.parametrize("text", ["hello\n", "a,b,c\n", '{"hello": 1}\n'])
def test_an_unknown_beginning_names_the_known_formats(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert "azure" in assert_broken(lambda: read_trace(path), line=1, field=None)


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert_broken(lambda: read_trace(path), line=None, field=None)
    for name in FORMATS:
        assert_broken(lambda: read_trace(path, name), line=None, field=None)  # noqa: B023


@pytest.mark.parametrize("text", [AZURE, BURSTGPT + "1,GPT-4,5,0,5,API log\n", EXAMPLES["sage"].partition("\n")[0]])
def test_a_trace_without_requests_is_an_error(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert "no requests" in assert_broken(lambda: read_trace(path), line=None, field=None)


def test_bytes_that_are_not_text_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(AZURE.encode() + b"\xff\xfe\n")
    assert_broken(lambda: read_trace(path), line=2, field=None)


def test_a_file_without_line_ends_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_lines, "LONGEST_LINE_BYTES", 100)
    path = written(tmp_path, AZURE + "1" * 101)
    assert_broken(lambda: read_trace(path), line=2, field=None)


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TIMESTAMP,ContextTokens\n", "lacks GeneratedTokens of the format azure; it has TIMESTAMP, ContextTokens"),
        (
            "timestamp,context_tokens,generated_tokens\n",
            "lacks TIMESTAMP, ContextTokens, GeneratedTokens of the format azure",
        ),
        ("Timestamp,Model,Request tokens\n", "lacks Response tokens, Total tokens, Log Type of the format burstgpt"),
        ("TIMESTAMP;ContextTokens;GeneratedTokens\n", "the 3 cells are not separated by commas"),
        ('[{"timestamp": 0}]\n', "a list in JSON; a trace has one object on each line"),
    ],
)
def test_what_a_beginning_lacks_of_the_format_that_it_is_like(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    assert said in assert_broken(lambda: read_trace(path), line=1, field=None)


def test_a_compressed_file_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(EXAMPLES["azure"].encode()))
    assert "compressed" in assert_broken(lambda: read_trace(path), line=None, field=None)
