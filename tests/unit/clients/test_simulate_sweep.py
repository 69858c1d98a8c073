"""``sagectl simulate sweep``: options, tables, JSON."""

from __future__ import annotations

import json
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

from sage_simulator.parallel_runs import RunError
from sagectl import cli


def sweep(*arguments: str) -> Result:
    fast = ("--workers", "1", "--seeds", "2", "--duration", "10", "--resolution", "0.2")
    return CliRunner().invoke(cli.sagectl, ("simulate", "sweep", *fast, *arguments), prog_name="sagectl")


def test_the_highest_load_is_shown_for_each_policy() -> None:
    shown = sweep("--instances", "1xslots=8", "--policy", "fifo", "--policy", "priority", "--ttft-target", "0.5")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Highest load with 90% in target on 1 instance, 2 seeds; 1 is ")
    assert "fifo" in shown.stdout
    assert "±" in shown.stdout


def test_every_load_that_was_tried_is_in_the_json() -> None:
    document = json.loads(sweep("--instances", "1xslots=8", "--policy", "fifo", "--json", "-").stdout)
    assert [each["seed"] for each in document["searches"]] == [1, 2]
    for each in document["searches"]:
        assert len(each["points"]) >= 2
        assert each["best"]["summary"]["in_target_share"] >= document["share"] == 0.9


def test_the_cheapest_fleet_is_shown_with_its_instances() -> None:
    kinds = ("--kinds", "3xslots=8,price=2;1xspeed=2,slots=8,price=9", "--rate", "3", "--policy", "fifo")
    shown = sweep(*kinds, "--ttft-target", "1")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Cheapest fleet with 90% in target at 3.00/s, 2 seeds")
    assert "xslots=8,price=2" in shown.stdout
    document = json.loads(sweep(*kinds, "--json", "-").stdout)
    [found] = document["searches"]
    assert found["complete"]
    assert found["best"]["counts"][0] >= 1


def test_where_nothing_is_enough_that_is_said() -> None:
    shown = sweep("--kinds", "1xslots=8", "--rate", "2", "--policy", "fifo", "--ttft-target", "0.000001")
    assert shown.exit_code == 0
    assert "none is enough" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kinds", "2x"), "--kinds needs --rate"),
        (("--kinds", "2x", "--rate", "1", "--fleet", "E8"), "--kinds excludes --fleet"),
        (("--rate", "1"), "--rate is for --kinds"),
        (("--kinds", "1x", "--rate", "1000"), "of their computed capacity; more instances or a lower rate are needed"),
        (("--kinds", "1x", "--rate", "nan"), "'--rate': nan is not a finite number"),
        (("--kinds", "2xA", "--rate", "1"), "--kinds: '2xA': no kind 'A'; there are: none"),
        (("--kinds", "999xprice=1;999xprice=2", "--rate", "1"), "2 kinds of instances have 1000000 mixes; from 1 to"),
        (("--share", "1.5"), "'--share': 1.5 is not a number above 0 and up to 1"),
        (("--resolution", "nan"), "'--resolution': nan is not a finite number"),
        (("--json", "/nowhere/x.json"), "'--json': there is no folder /nowhere for x.json"),
        (("--requests", "5"), "--requests and --duration exclude one another"),
        (("--policy", "prority"), "--policy: unknown policy 'prority'; did you mean priority? There are: adaptive, "),
        (("--classes", "gold"), "no classes 'gold'"),
        (("--model", "a=x"), "'x' is no weight"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    refused = sweep(*arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr.splitlines()[-1]


def test_a_process_that_died_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def died(*_: object) -> NoReturn:
        raise RunError("the process of job 3 ended with status -9")

    monkeypatch.setattr("sage_simulator.parallel_runs.run_all", died)
    failed = sweep("--policy", "fifo")
    assert (failed.exit_code, failed.stderr) == (1, "Error: the process of job 3 ended with status -9\n")
