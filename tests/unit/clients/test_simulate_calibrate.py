"""``sagectl simulate calibrate``, and what ``run`` makes of its file and of a recording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sagectl import cli

STEP_S = 0.01


def sagectl(*arguments: str) -> Result:
    return CliRunner().invoke(cli.sagectl, ("simulate", *arguments), prog_name="sagectl")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Ten requests on one instance whose steps take 10 ms whatever they do, each alone there."""
    lines = [
        {"format": "sage_log", "version": 1, "began": "2026-01-01T00:00:00+00:00", "part": 1},
        {
            "kind": "instance",
            "at_s": 0.0,
            "instance": "e1",
            "model": "m",
            "state": "ready",
            "role": "general",
            "price_per_hour": 2.0,
            "max_model_len": 1_000,
            "kv_capacity_tokens": 64_000,
            "kv_block_size": 16,
            "max_running": 8,
            "max_batched_tokens": 512,
        },
        {
            "kind": "load",
            "at_s": 5.0,
            "instance": "e1",
            "heartbeats": 10,
            "shortest_gap_s": 0.05,
            "longest_gap_s": 0.5,
            "samples": [[0, 1, 1, 100, STEP_S]] * 40,
        },
    ]
    lines += [
        {
            "kind": "request",
            "arrival_s": 1.0 + n,
            "model": "m",
            "prompt_tokens": 100,
            "output_tokens": 5,
            "max_tokens": 5,
            "priority": "NORMAL",
            "end": "finished",
            "policy": "fifo",
            "instance": "e1",
            "attempts": 1,
            "decided_s": 1.0 + n,
            "first_token_s": 1.002 + n + STEP_S,
            "last_token_s": 1.002 + n + 5 * STEP_S,
            "ended_s": 1.002 + n + 5 * STEP_S,
        }
        for n in range(10)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def test_the_fit_and_the_replay_are_shown(recording: Path) -> None:
    shown = sagectl("calibrate", str(recording))
    assert shown.exit_code == 0
    assert "10.000" in shown.stdout  # base, ms
    assert "the iterations do not tell the time of a prefill token, running sequence, context token" in shown.stdout
    assert "1.00 ms each way (from 10 requests that had an instance alone)" in shown.stdout
    assert "10 recorded requests, simulated under fifo" in shown.stdout
    assert shown.stdout.count("+0%") + shown.stdout.count("-0%") == 4


def test_the_file_is_a_fleet_that_run_takes(recording: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.json"
    assert f"wrote {fleet}" in sagectl("calibrate", str(recording), "--out", str(fleet)).stdout
    for source in (fleet, recording):
        run = sagectl("run", "--trace", str(recording), "--fleet", str(source), "--policy", "priority", "--json", "-")
        [found] = json.loads(run.stdout)["runs"]
        assert (found["requests"], found["policy"]) == (10, "priority")
        assert found["ttft"]["p50_s"] == pytest.approx(0.012, rel=0.05)
        assert found["instances"][0]["price_per_hour"] == 2.0


def test_noise_of_a_file_can_be_replaced(recording: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.json"
    sagectl("calibrate", str(recording), "--out", str(fleet))
    calm, noisy = (
        json.loads(sagectl("run", "--trace", str(recording), "--fleet", str(fleet), *noise, "--json", "-").stdout)
        for noise in ((), ("--noise", "0.5"))
    )
    assert calm["runs"][0]["ttft"] != noisy["runs"][0]["ttft"]


def test_json_comes_alone(recording: Path) -> None:
    document = json.loads(sagectl("calibrate", str(recording), "--json", "-").stdout)
    assert document["calibration"]["instances"][0]["fit"]["samples"] == 40
    assert document["replay"]["requests"] == 10


def test_requests_need_not_be_replayed(recording: Path) -> None:
    assert "recorded requests" not in sagectl("calibrate", str(recording), "--replay", "0").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "other"), "no instance of model 'other' was ready; the recording has: m"),
        (("--to", "2"), "0 iterations were recorded, 32 are needed"),
        (("--out", "/nowhere/fleet.json"), "/nowhere/fleet.json: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(recording: Path, arguments: tuple[str, ...], said: str) -> None:
    refused = sagectl("calibrate", str(recording), *arguments)
    assert refused.exit_code == 2
    assert said in refused.output


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_text('{"format": "sage_trace", "version": 1}\n')
    assert "expected 'sage_log', got 'sage_trace'" in sagectl("calibrate", str(path)).output
    assert "expected the format 'sage_fleet'" in sagectl("run", "--fleet", str(path)).output
