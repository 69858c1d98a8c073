"""``sagectl simulate run``: options, the table, the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sagectl import cli


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.sagectl, ("simulate", "run", *arguments), prog_name="sagectl")


def test_one_policy_is_shown_with_its_instances() -> None:
    shown = run("--requests", "20", "--policy", "fifo", "--instances", "2xspeed=1.5,price=2")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("20 requests on 2 instances at ")
    assert "0.60 of capacity" in shown.stdout
    assert "i001" in shown.stdout


def test_several_policies_are_compared() -> None:
    shown = run("--requests", "20", "--policy", "fifo", "--policy", "priority", "--rate", "5")
    assert "at 5.00/s" in shown.stdout
    assert [name in shown.stdout for name in ("fifo", "priority", "i001")] == [True, True, False]


def test_json_on_stdout_comes_alone() -> None:
    document = json.loads(run("--requests", "20", "--policy", "fifo", "--load", "0.3", "--json", "-").stdout)
    assert document["rate_per_s"] == pytest.approx(0.3 * document["capacity_per_s"])
    [found] = document["runs"]
    assert (found["policy"], found["requests"], found["ends"]["finished"]) == ("fifo", 20, 20)
    assert found["ttft"]["p99_s"] > 0


def test_json_in_a_file_comes_beside_the_table(tmp_path: Path) -> None:
    shown = run("--requests", "20", "--json", str(tmp_path / "result.json"))
    assert "adaptive" in shown.stdout
    assert json.loads((tmp_path / "result.json").read_text())["runs"][0]["policy"] == "adaptive"


def test_a_trace_keeps_its_own_rate(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    header = '{"format": "sage_trace", "version": 1}\n'
    trace.write_text(
        header + "".join(f'{{"arrival_s": {n}, "prompt_tokens": 10, "output_tokens": 3}}\n' for n in range(5))
    )
    document = json.loads(run("--trace", str(trace), "--json", "-").stdout)
    assert document["rate_per_s"] is None
    assert document["runs"][0]["span_s"] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "fastest"), "unknown policy 'fastest'; there are: adaptive, cost_optimized, fifo"),
        (("--fleet", "E9"), "no fleet 'E9'; there are: E8, U8, PD"),
        (("--instances", "2xcolour=red"), "the keys are speed, price"),
        (("--instances", "2xrole=embedding"), "the simulator's instances generate"),
        (("--fleet", "E8", "--instances", "1x"), "--fleet and --instances exclude one another"),
        (("--rate", "1", "--load", "1"), "--rate and --load exclude one another"),
        (("--load", "0"), "'--load'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    refused = run("--requests", "5", *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr.splitlines()[-1]
