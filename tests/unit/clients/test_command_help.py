"""The help of every command: examples that can be run, lines that are not cut, one meaning per option."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sagectl.cli import sagectl
from sagectl.options.command import Command, Example, Group, SharedOption

HANDED_ON = {"gateway"}  # its help is that of the gateway itself


def commands(group: click.Group = sagectl, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        path = f"{before} {name}".strip()
        yield path, command
        if isinstance(command, click.Group):
            yield from commands(command, path)


ALL = dict(commands())
LEAVES = {path: each for path, each in ALL.items() if not isinstance(each, click.Group) and path not in HANDED_ON}


def examples(command: click.Command) -> tuple[Example, ...]:
    return tuple(command.examples) if isinstance(command, Command | Group) else ()


def test_every_command_is_in_the_list_of_commands() -> None:
    shown = CliRunner().invoke(sagectl, ["--help"]).output
    assert {name for name in sagectl.commands if f"\n  {name} " not in shown} == set()


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_every_command_has_examples_of_itself(path: str) -> None:
    found = examples(LEAVES[path])
    assert found
    assert all(f"{arguments} ".startswith(f"{path} ") for arguments, _ in found)
    shown = CliRunner().invoke(sagectl, [*path.split(), "--help"]).output
    assert all(f"sagectl {arguments}" in shown and f"# {about}" in shown for arguments, about in found)


@pytest.mark.parametrize(
    "arguments", sorted(arguments for each in (*LEAVES.values(), sagectl) for arguments, _ in examples(each))
)
def test_every_example_is_understood(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is parsed, down to its own options, and not run."""
    monkeypatch.chdir(tmp_path)
    Path("log.jsonl").touch()
    words = shlex.split(arguments.partition(" < ")[0].partition(" > ")[0].partition(" && ")[0])
    command: click.Command = sagectl
    context = sagectl.make_context("sagectl", words)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("path", ["", *sorted(ALL)])
def test_no_line_of_help_is_cut_or_wider_than_80_columns(path: str) -> None:
    if path in HANDED_ON:
        return
    shown = CliRunner().invoke(sagectl, [*path.split(), "--help"], terminal_width=80).output
    about = shown.partition("Options:")[0]
    assert "..." not in about.partition("Examples:")[0].replace("[ARGS]...", "").replace("...\n\n", "\n\n")
    assert max(len(line) for line in shown.splitlines() if "sagectl " not in line and "# " not in line) <= 80


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_who_connects_prints_in_every_format(path: str) -> None:
    sections = {each.section for each in LEAVES[path].params if isinstance(each, SharedOption)}
    names = {name for each in LEAVES[path].params for name in each.opts}
    if "--address" in names and path != "up":
        assert names >= {"-o", "--output", "--json", "--token-file", "--tls-ca", "--tenant", "--call-timeout"}
        assert len(sections) == 2


def test_options_of_one_name_mean_one_thing() -> None:
    """Each is of one type everywhere, except that `up` listens on its address, and a simulation may write a file."""
    kinds: dict[str, set[str]] = {}
    for path, command in LEAVES.items():
        if path == "up" or path.startswith("simulate"):
            continue
        for param in command.params:
            for name in param.opts if isinstance(param, click.Option) else ():
                kinds.setdefault(name, set()).add(param.type.name)
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (("--address", "h:1", "up"), "up takes no --address before it"),
        (("--json", "simulate", "run"), "simulate takes no --json before it"),
        (("-o", "yaml", "down"), "down takes no -o before it"),
        (("--tls", "status"), "status takes no --tls before it"),
        (("--tenant", "blue", "gateway"), "gateway takes no --tenant before it"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(arguments: tuple[str, ...], refused: str) -> None:
    done = CliRunner().invoke(sagectl, arguments)
    assert (done.exit_code, refused in done.stderr) == (2, True)


@pytest.mark.parametrize(("debug", "shows_where"), [("", False), ("1", True)])
def test_an_unforeseen_error_is_one_line_unless_it_is_looked_into(
    debug: str, shows_where: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("this\nwas not foreseen")

    monkeypatch.setattr(ALL["instances"], "callback", fail)
    done = CliRunner().invoke(sagectl, ["instances"], env={"SAGECTL_DEBUG": debug})
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("error: unforeseen RuntimeError: this was not foreseen")
    assert ("Traceback" in done.stderr) == shows_where


def test_a_mistyped_command_is_answered_with_what_may_be_meant() -> None:
    done = CliRunner().invoke(sagectl, ["instnces"])
    assert done.exit_code == 2
    assert "no command 'instnces'; did you mean instances?" in done.stderr
