"""Mooncake's JSONL traces, and aiperf's variant with sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_simulator.traces import read_trace
from sage_simulator.traces.aiperf import ASSUMED_TPOT_S, ASSUMED_TTFT_S
from tests.unit.simulator.trace_files import assert_broken, json_lines, written


def row(**changed: Any) -> dict[str, Any]:
    values = {"timestamp": 0, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]} | changed
    return {name: value for name, value in values.items() if value is not None}


def test_a_mooncake_line_has_milliseconds_lengths_and_a_hash_per_full_block(tmp_path: Path) -> None:
    text = json_lines(row(timestamp=1000), row(timestamp=11535, input_length=512, output_length=1, hash_ids=[46]))
    first, second = read_trace(written(tmp_path, text))
    assert (first.arrival_s, first.prompt_tokens, first.output_tokens, first.block_tokens) == (0.0, 1100, 52, 512)
    assert (second.arrival_s, second.prompt_tokens, second.output_tokens) == (10.535, 512, 1)
    assert len(first.block_hashes) == 2  # the third block is not full
    assert second.block_hashes == first.block_hashes[:1]


def test_a_hash_stands_for_the_whole_prefix(tmp_path: Path) -> None:
    ids = [[1, 2, 3], [1, 2, 4], [5, 2, 3]]
    same, forked, other = read_trace(written(tmp_path, json_lines(*(row(input_length=1536, hash_ids=i) for i in ids))))
    assert same.block_hashes[:2] == forked.block_hashes[:2]
    assert same.block_hashes[2] != forked.block_hashes[2]
    assert not set(same.block_hashes) & set(other.block_hashes)


def test_a_line_without_hash_ids_shares_nothing(tmp_path: Path) -> None:
    [request] = read_trace(written(tmp_path, json_lines(row(hash_ids=None))))
    assert request.block_hashes == ()


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (row(timestamp=None), "timestamp"),
        (row(timestamp="0"), "timestamp"),
        (row(timestamp=-1), "timestamp"),
        (row(timestamp=float("nan")), "timestamp"),
        (row(timestamp=10**400), "timestamp"),
        (row(input_length=0), "input_length"),
        (row(input_length=True), "input_length"),
        (row(input_length=None), "input_length"),
        (row(output_length=2.5), "output_length"),
        (row(output_length=None), "output_length"),
        (row(hash_ids=7), "hash_ids"),
        (row(hash_ids=["a"]), "hash_ids"),
        (row(hash_ids=[1, 2, 3, 4]), "hash_ids"),
        (row(session_id="a"), "session_id"),
        (row(delay=3), "delay"),
    ],
)
def test_a_broken_mooncake_line_is_named_by_line_and_field(tmp_path: Path, broken: dict[str, Any], field: str) -> None:
    path = written(tmp_path, json_lines(row(), broken))
    assert_broken(lambda: read_trace(path), line=2, field=field)


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 100_000, '{"a":' + "1" * 5000 + "}"])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, json_lines(row()) + text + "\n")
    assert_broken(lambda: read_trace(path), line=2, field=None)


def test_a_later_turn_of_a_session_holds_the_history_and_shares_its_blocks(tmp_path: Path) -> None:
    text = json_lines(
        {"session_id": "a", "timestamp": 2000, "input_length": 1000, "output_length": 100},
        {"session_id": "a", "delay": 4000, "input_length": 500, "output_length": 10},
        {"session_id": "b", "timestamp": 2500, "input_length": 1000, "output_length": 100},
    )
    first, other, second = read_trace(written(tmp_path, text))
    assert (first.session, other.session, second.session) == ("a", "b", "a")
    assert (first.prompt_tokens, second.prompt_tokens) == (1000, 1600)
    assert second.arrival_s == pytest.approx(ASSUMED_TTFT_S + 99 * ASSUMED_TPOT_S + 4.0)
    assert len(second.block_hashes) == 3
    assert second.block_hashes[:1] == first.block_hashes
    assert not set(other.block_hashes) & set(second.block_hashes)


@pytest.mark.parametrize(
    ("mode", "tokens"),
    [
        ("deltas_without_responses", 1600),
        ("deltas_with_responses", 1500),
        ("message_array_with_responses", 500),
    ],
)
def test_the_context_mode_says_what_a_turn_holds(tmp_path: Path, mode: str, tokens: int) -> None:
    turn = {"session_id": "a", "context_mode": mode, "output_length": 100}
    text = json_lines(turn | {"timestamp": 0, "input_length": 1000}, turn | {"timestamp": 9, "input_length": 500})
    assert [request.prompt_tokens for request in read_trace(written(tmp_path, text))] == [1000, tokens]


def test_hash_ids_of_first_turns_are_shared_between_sessions(tmp_path: Path) -> None:
    turn = {"timestamp": 0, "input_length": 1100, "output_length": 9, "hash_ids": [1, 2]}
    first, second = read_trace(written(tmp_path, json_lines(turn | {"session_id": "a"}, turn | {"session_id": "b"})))
    assert first.block_hashes == second.block_hashes
    assert len(first.block_hashes) == 2


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"session_id": "b", "delay": 1, "input_length": 1, "output_length": 1}, "timestamp"),
        ({"session_id": 4, "timestamp": 1, "input_length": 1, "output_length": 1}, "session_id"),
        ({"session_id": "a", "delay": -1, "input_length": 1, "output_length": 1}, "delay"),
        ({"session_id": "a", "text_input": "hello", "output_length": 1}, "input_length"),
        ({"session_id": "a", "messages": [], "output_length": 1}, "input_length"),
        ({"session_id": "a", "input_length": 1}, "output_length"),
        ({"session_id": "a", "context_mode": "all", "input_length": 1, "output_length": 1}, "context_mode"),
    ],
)
def test_a_broken_turn_is_named_by_line_and_field(tmp_path: Path, broken: dict[str, Any], field: str) -> None:
    first = {"session_id": "a", "timestamp": 0, "input_length": 5, "output_length": 5}
    path = written(tmp_path, json_lines(first, broken))
    assert_broken(lambda: read_trace(path), line=2, field=field)
