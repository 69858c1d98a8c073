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


def predicting(recording: Path) -> Path:
    """Make it 400 requests that wait 2 s; told were 1 s, and after the placement 20 % less than what came."""
    *others, request = (json.loads(line) for line in recording.read_text().splitlines()[:4])
    lines = [
        {
            **request,
            "arrival_s": n * 0.1,
            "decided_s": n * 0.1 + 2.0,
            "first_token_s": n * 0.1 + 2.1,
            "last_token_s": n * 0.1 + 2.2,
            "ended_s": n * 0.1 + 2.2,
            "expected_wait_s": 1.0,
            "predicted_first_token_s": 0.08,
        }
        for n in range(400)
    ]
    recording.write_text("".join(json.dumps(each) + "\n" for each in (*others, *lines)))
    return recording


def test_what_was_predicted_is_compared_with_what_came(recording: Path) -> None:
    shown = sagectl("calibrate", str(predicting(recording)), "--replay", "0", "--json", "-")
    errors = json.loads(shown.stdout)["predictions"]
    assert (errors["first_token"]["judged"], errors["wait"]["judged"]) == (200, 400), "200 are for learning"
    assert errors["first_token"]["median_error"] == pytest.approx(0.2)
    assert errors["first_token"]["close_share"] == 1.0
    assert errors["wait"] == {
        "judged": 400,
        "median_error": 0.5,
        "p90_error": 0.5,
        "median_ratio": 0.5,
        "close_share": 0,
    }


def test_what_came_before_the_judged_time_counts_as_learned_from(recording: Path) -> None:
    path = str(predicting(recording))
    shown = sagectl("calibrate", path, "--from", "10.05", "--replay", "0", "--json", "-")
    assert shown.exit_code == 2, "the iterations of that time are too few"
    shown = sagectl("calibrate", path, "--to", "30.05", "--replay", "0", "--json", "-")
    assert json.loads(shown.stdout)["predictions"]["first_token"]["judged"] == 101


def test_a_recording_without_predictions_has_none_to_judge(recording: Path) -> None:
    shown = sagectl("calibrate", str(recording), "--json", "-")
    assert json.loads(shown.stdout)["predictions"]["wait"] == {
        **dict.fromkeys(("median_error", "p90_error", "median_ratio", "close_share")),
        "judged": 0,
    }


def test_the_plot_shows_both_kinds(recording: Path, tmp_path: Path) -> None:
    shown = sagectl("calibrate", str(predicting(recording)), "--plot", str(tmp_path / "p.svg"))
    assert shown.exit_code == 0, shown.output
    drawn = (tmp_path / "p.svg").read_text()
    assert "First token, from placement (200)" in drawn
    assert "Wait in the queue (400)" in drawn


def test_a_plot_for_a_folder_that_is_not_there_is_refused_before_anything_is_read(recording: Path) -> None:
    shown = sagectl("calibrate", str(recording), "--plot", "/not/there/p.svg")
    assert shown.exit_code == 2
    assert "--plot /not/there/p.svg: there is no folder /not/there" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "5", "--to", "3"), "--to 3 is not after --from 5"),
        (("--from", "nan"), "'--from': nan is not a finite number"),
        (("--out", "/nowhere/fleet.json"), "--out /nowhere/fleet.json: there is no folder /nowhere"),
        (("--json", "/nowhere/x.json"), "'--json': there is no folder /nowhere for x.json"),
        (("--model", "other"), "log.jsonl: no instance of model 'other' was ready; the recording has: m"),
    ],
)
def test_what_cannot_be_fitted_names_the_option_or_the_recording(
    recording: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused = sagectl("calibrate", str(recording), *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize("content", ["TIMESTAMP,ContextTokens,GeneratedTokens\n", '{"kind": "instance"}\n', "[]\n"])
def test_a_file_that_is_no_recording_is_refused_with_what_one_begins_with(tmp_path: Path, content: str) -> None:
    other = tmp_path / "other"
    other.write_text(content)
    refused = sagectl("calibrate", str(other))
    assert refused.exit_code == 2
    assert f'{other}, line 1: no recording of `sage-scheduler --record`: that begins with {{"format"' in refused.stderr
