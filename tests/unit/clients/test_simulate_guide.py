"""The commands of docs/simulate.md run, on shorter traces, and are the ones whose output stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from sagectl import cli
from tests.architecture.source_tree import ROOT

GUIDE = (ROOT / "docs" / "simulate.md").read_text()
COMMANDS = re.findall(r"```sh\n(sagectl simulate .*?)\n```", GUIDE, re.DOTALL)


def shortened(command: str) -> list[str]:
    """The words of a command, for a trace of a few seconds and one seed."""
    text = re.sub(r"--(requests|duration|seeds|event|stretch) ('[^']*'|\S+)", "", command.replace("\\\n", " "))
    words = shlex.split(text)[1:]
    events = [
        option for event in re.findall(r"--event '\d+s ([^']*)'", command) for option in ("--event", f"1s {event}")
    ]
    sweep = ["--resolution", "0.3"] if "sweep" in words else []
    return [*words, *sweep, *events, "--duration", "3", "--seeds", "1", "--workers", "1"]


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_every_command_of_the_guide_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.sagectl, shortened(command), prog_name="sagectl")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.search(r"^(POLICY|INSTANCE)  ", done.stdout, re.MULTILINE)


def test_every_command_of_the_guide_stands_with_what_it_prints() -> None:
    assert re.findall(r"```sh\n(sagectl simulate [^`]*?)\n```\n(?!\n```text\n)", GUIDE) == []


def test_every_output_in_the_guide_has_the_title_of_its_command() -> None:
    for command, output in re.findall(r"```sh\n(sagectl simulate .*?)\n```\n\n```text\n(.*?)\n", GUIDE, re.DOTALL):
        expected = "Cheapest fleet" if "--kinds" in command else "Highest load" if "sweep" in command else "requests on"
        assert expected in output
