"""``sagectl keys add``: the key on stdout, its hash in the file, and what the options grant."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import hash_of
from sagectl.cli import sagectl


def run(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(sagectl, ["keys", "add", *arguments, "--file", str(directory / "keys.toml")])


@pytest.mark.parametrize(
    ("options", "grant"),
    [
        (["--role", "operator"], Grant(role=Role.OPERATOR)),
        (["--role", "observer"], Grant(role=Role.OBSERVER)),
        (["--role", "application", "--tenant", "t"], Grant(role=Role.APPLICATION, tenant="t")),
        (
            ["--role", "gateway", "--tenant", "a", "--tenant", "b-*"],
            Grant(role=Role.GATEWAY, tenants=("a", "b-*")),
        ),
        (["--role", "executor"], Grant(role=Role.EXECUTOR, instances=("me",))),
        (
            ["--role", "executor", "--instance", "x", "--instance", "y-*"],
            Grant(role=Role.EXECUTOR, instances=("x", "y-*")),
        ),
    ],
)
def test_a_key_is_printed_once_and_its_hash_is_written(tmp_path: Path, options: list[str], grant: Grant) -> None:
    result = run(tmp_path, "me", *options)
    assert result.exit_code == 0, result.output
    secret = result.stdout.strip()
    assert secret.startswith("sage_")
    assert result.stdout == f"{secret}\n", "nothing else: stdout is the token file"
    assert "added me" in result.stderr
    (key,) = keys_file.read(tmp_path / "keys.toml")
    assert (key.name, key.sha256, key.grant) == ("me", hash_of(secret), grant)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--role", "application"], "an application has one"),
        (["--role", "application", "--tenant", "a", "--tenant", "b"], "an application has one"),
        (["--role", "gateway"], "tenants: the role gateway needs it"),
        (["--role", "operator", "--tenant", "a"], "tenants: only the role gateway has it"),
        (["--role", "observer", "--instance", "a"], "instances: only the role executor has it"),
        (["--role", "gateway", "--tenant", "*-*"], "at most one *"),
        (["--role", "root"], "'root' is not one of"),
        ([], "Missing option '--role'"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: list[str], said: str) -> None:
    result = run(tmp_path, "me", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "keys.toml").exists()


def test_a_name_that_is_there_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "me", "--role", "operator")
    result = run(tmp_path, "me", "--role", "operator")
    assert result.exit_code == 2
    assert "has a key 'me' already" in result.stderr
