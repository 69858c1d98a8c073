"""``sagectl simulate run``: options, the table, the JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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


def test_the_policies_that_adaptive_followed_are_told_with_times_and_reasons() -> None:
    load = ("--requests", "40", "--load", "0.2", "--instances", "1xprice=5;1xprice=1")
    alone = run(*load, "--policy", "adaptive")
    assert "Policies followed" in alone.stdout
    assert re.search(r"adaptive +1 +model +cost_optimized +0\.0 +\d+\.\d  .*prices differ by 400%", alone.stdout)
    several = run(*load, "--policy", "adaptive", "--policy", "fifo")
    assert "Policies followed" not in several.stdout, "a line for each, where there are many"
    assert "adaptive, seed 1: followed cost_optimized 100% of the time, 0 switches" in several.stdout
    assert "fifo, seed 1" not in several.stdout
    [found] = json.loads(run(*load, "--policy", "adaptive", "--json").stdout)["runs"]
    assert found["followed"][0].keys() == {"model", "policy", "from_s", "until_s", "reason"}


def test_roles_follow_the_load_where_they_are_automatic() -> None:
    sides = "2xspeed=0.25,role=prefilling;2xspeed=0.25,role=decoding"
    load = ("--requests", "200", "--rate", "4", "--prompt-median", "3000", "--output-median", "20")
    arguments = (*load, "--instances", sides, "--pd", "always")
    assert "role changes" in run(*arguments, "--automatic-roles").stdout
    assert "role changes" not in run(*arguments).stdout


def test_a_load_whose_shape_shifts_comes_at_its_own_rate() -> None:
    shown = run("--stretch", "10:4:800:10", "--stretch", "10:8:80:40", "--instances", "2xspeed=1", "--policy", "fifo")
    assert shown.exit_code == 0, shown.output
    assert "requests on 2 instances\n" in shown.stdout
    refused = run("--stretch", "10:4:800")
    assert "--stretch 10:4:800: it is SECONDS:RATE:PROMPT:OUTPUT" in refused.output


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


def test_several_seeds_give_means_with_intervals() -> None:
    arguments = ("--requests", "40", "--policy", "fifo", "--policy", "priority", "--seeds", "3", "--workers", "1")
    shown = run(*arguments)
    assert ", 3 seeds" in shown.stdout
    assert "±" in shown.stdout
    document = json.loads(run(*arguments, "--json", "-").stdout)
    assert [(each["policy"], each["seed"]) for each in document["runs"]] == [
        (policy, seed) for policy in ("fifo", "priority") for seed in (1, 2, 3)
    ]
    assert [each["policy"] for each in document["figures"]] == ["fifo", "priority"]
    estimate = document["figures"][0]["figures"]["ttft_p50_s"]
    found = [each["ttft"]["p50_s"] for each in document["runs"][:3]]
    assert estimate["mean"] == pytest.approx(sum(found) / 3)
    assert estimate["half_width"] > 0


def test_processes_do_not_change_the_result() -> None:
    arguments = ("--requests", "40", "--policy", "fifo", "--seeds", "2", "--json", "-")
    assert run(*arguments, "--workers", "1").stdout == run(*arguments, "--workers", "2").stdout


def test_the_splitting_fleet_splits_unless_told_not_to() -> None:
    def splits(*arguments: str) -> int:
        document = json.loads(
            run("--fleet", "PD", "--requests", "30", "--policy", "fifo", "--json", "-", *arguments).stdout
        )
        return int(document["runs"][0]["splits"])

    assert splits() == 30
    assert splits("--pd", "never") == 0
    assert splits("--kv-latency", "0.1", "--kv-bandwidth", "1") == 30


def test_the_world_varies_as_asked() -> None:
    def played(*arguments: str) -> dict[str, Any]:
        fixed = ("--requests", "300", "--rate", "20", "--policy", "fifo", "--instances", "2xA", "--kind", "A:slots=32")
        runs = json.loads(run(*fixed, "--json", "-", *arguments).stdout)["runs"]
        assert isinstance(runs[0], dict)
        return runs[0]

    calm = played()
    assert played("--noise", "0.2")["ttft"] != calm["ttft"]
    assert played("--cancel", "0.5", "--cancel-after", "0.5")["ends"]["cancelled"] > 50
    changed = played("--event", "5s fail i000", "--event", "6s add 2xA", "--event", "9s drain instance-1")
    assert len(changed["instances"]) == 4
    assert changed["failovers"] > 0
    assert changed["ends"]["finished"] == 300


def test_requests_of_several_models_go_to_their_instances() -> None:
    document = json.loads(
        run(
            "--requests", "100", "--policy", "fifo", "--model", "small=3", "--model", "large=1",
            "--instances", "1xmodel=small;1xmodel=large", "--json", "-",
        ).stdout
    )  # fmt: skip
    small, large = (each["requests"] for each in document["runs"][0]["instances"])
    assert small + large == 100
    assert small > 2 * large > 0


def written_trace(folder: Path) -> Path:
    trace = folder / "trace.jsonl"
    header = '{"format": "sage_trace", "version": 1}\n'
    trace.write_text(
        header + "".join(f'{{"arrival_s": {n}, "prompt_tokens": 10, "output_tokens": 3}}\n' for n in range(5))
    )
    return trace


def test_seeds_of_a_trace_from_a_file_need_something_that_varies(tmp_path: Path) -> None:
    arguments = ("--trace", str(written_trace(tmp_path)), "--seeds", "2", "--workers", "1")
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "each seed would give the same" in refused.stderr
    assert ", 2 seeds" in run(*arguments, "--noise", "0.1").stdout


def test_a_trace_keeps_its_own_rate(tmp_path: Path) -> None:
    trace = written_trace(tmp_path)
    document = json.loads(run("--trace", str(trace), "--json", "-").stdout)
    assert document["rate_per_s"] is None
    assert document["runs"][0]["span_s"] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "fastest"), "--policy: unknown policy 'fastest'; there are: adaptive, cost_optimized, "),
        (
            ("--policy", "slo-aware"),
            "--policy: unknown policy 'slo-aware'; did you mean slo_aware? There are: adaptive, ",
        ),
        (("--fleet", "E9"), "--fleet: no fleet 'E9'; there are: E8, U8, PD"),
        (("--fleet", "u8"), "no fleet 'u8'; did you mean U8? There are: E8, U8, PD"),
        (("--instances", "2xcolour=red"), "--instances: 'colour=red': no key 'colour'; the keys are: speed, price"),
        (("--instances", "2xrole=embedding"), "the simulator's instances generate"),
        (("--fleet", "E8", "--instances", "1x"), "--fleet and --instances exclude one another"),
        (("--rate", "1", "--load", "1"), "--rate and --load exclude one another"),
        (("--load", "0"), "'--load': 0 is not a number above 0 and up to 1,000,000"),
        (("--load", "nan"), "'--load': nan is not a finite number"),
        (("--load", "many"), "'--load': 'many' is not a number"),
        (("--rate", "inf"), "'--rate': inf is not a finite number"),
        (("--rate", "1e-300"), "s to arrive; at most a year, 31622400 s, is simulated"),
        (("--ttft-target", "nan"), "'--ttft-target': nan is not a finite number"),
        (("--cancel", "2"), "'--cancel': 2 is not a number from 0 to 1"),
        (("--kv-latency", "-1"), "'--kv-latency': -1 is not a number of 0 or more"),
        (("--fleet", ""), "--fleet: no fleet ''; there are: E8, U8, PD; nor is there a file of this name"),
        (("--fleet", __file__), "--fleet: " + __file__ + ": neither a fleet of `sagectl simulate calibrate --out` nor"),
        (
            ("--instances", "4xsped=1"),
            "--instances: 'sped=1': no key 'sped'; did you mean speed? The keys are: speed, ",
        ),
        (("--instances", "4xspeed"), "--instances: '4xspeed': speed has no value, as in speed=..."),
        (("--instances", "4xspeed=0"), "--instances: 'speed=0': speed: 0.0 is not a positive number"),
        (("--instances", "4xrole=prefill"), "'prefill' is no role; did you mean prefilling? There are: general, "),
        (("--kind", "A:sped=2"), "--kind: 'sped=2': no key 'sped'; did you mean speed?"),
        (("--output-median", "1e18"), "--output-median: the median must be from 1 to 2048 tokens, got 1e+18"),
        (("--classes", "mixd"), "--classes: no classes 'mixd'; did you mean mixed? There are: mixed, chat, untargeted"),
        (("--model", "=1"), "--model =1: it is NAME=WEIGHT, the weight a number above 0"),
        (("--autoscale", "4-1"), "--autoscale 4-1: min 4, max 1"),
        (("--stretch", "10:4:800:10"), "--stretch and --requests exclude one another"),
        (("--json", "/nowhere/x.json"), "'--json': there is no folder /nowhere for x.json"),
        (("--json", "/"), "'--json': / is a folder"),
        (("--event", "5s fail i009"), "no instance 'i009' at 5 s; there are i000 to i007"),
        (("--event", "soon fail i000"), "--event: 'soon fail i000': an event is a time"),
        (("--kind", "A"), "a kind is a name, a colon and keys"),
        (("--model", "a=1", "--model", "b=1", "--instances", "1xmodel=a"), "no instance for each of the models a, b"),
        (("--instances", "2xB"), "no kind 'B'; there are: none"),
        (("--model", "a=1", "--model", "b=1"), "an instance without a model, and requests for a, b"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    refused = run("--requests", "5", *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--duration", "-5"), "'--duration': -5 is not a number above 0"),
        (("--duration", "nan"), "'--duration': nan is not a finite number"),
        (("--duration", "inf"), "'--duration': inf is not a finite number"),
        (("--duration", "1e12"), "is 6.9e+13 requests; at most 10000000 are simulated"),
        (("--requests", "10000001"), "'--requests': 10000001 is not in the range"),
        (
            ("--stretch", "10:0:800:10"),
            "--stretch 10:0:800:10: a stretch's rate must be a finite number above 0, got 0.0",
        ),
        (("--stretch", "10:4:0:10"), "--stretch 10:4:0:10: the median must be from 1 to 16384 tokens, got 0"),
        (("--stretch", "1e9:9:800:10"), "the stretches hold 9e+09 requests; at most 10000000 are simulated"),
    ],
)
def test_a_load_that_is_none_or_too_long_is_refused(arguments: tuple[str, ...], said: str) -> None:
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", (), "trace: the file is empty"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", (), "trace: the trace has no requests"),
        (
            "TIMESTAMP,ContextTokens,Generated\n",
            (),
            "trace, line 1: the header lacks GeneratedTokens of the format azure; it has TIMESTAMP, Cont",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,5,5\n",
            ("--load", "1"),
            "so the trace has no rate",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,5,x\n",
            (),
            "line 2: GeneratedTokens: expected an",
        ),
        ('{"prompt": "hello"}\n', (), 'mooncake: {"timestamp": ..., "input_length": ..., '),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", ("--day", "60"), "--day is for a synthetic trace"),
    ],
)
def test_a_wrong_trace_is_named_with_its_line_and_field(
    tmp_path: Path, content: str, arguments: tuple[str, ...], said: str
) -> None:
    trace = tmp_path / "trace"
    trace.write_text(content)
    refused = run("--trace", str(trace), *arguments)
    assert refused.exit_code == 2
    assert str(trace) in refused.stderr or "--day" in arguments
    assert said in refused.stderr.splitlines()[-1]
