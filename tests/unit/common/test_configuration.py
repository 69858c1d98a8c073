"""Both services read their configuration the same way, and call the same mistake by the same words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from executor_svc import config as executor
from sage_common.configuration import ConfigError, ServiceConfig
from scheduler_svc import config as scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A service and what it needs to be told in any case."""

    module: str
    name: str
    prefix: str
    reads: Callable[[Sequence[str], Mapping[str, str]], ServiceConfig]
    needs: tuple[str, ...] = ()

    def load(self, *flags: str, **variables: str) -> ServiceConfig:
        return self.reads([*self.needs, *flags], {self.prefix + name: value for name, value in variables.items()})

    def complaint(self, *flags: str, **variables: str) -> str:
        with pytest.raises(ConfigError) as refused:
            self.load(*flags, **variables)
        said = str(refused.value)
        assert len(said.splitlines()) == 1, "one line"
        return said.replace(self.prefix, "SAGE_")

    def run(self, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(self.prefix)}
        environment |= {self.prefix + name: value for name, value in variables.items()}
        command = [sys.executable, "-m", self.module, *self.needs, *flags]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


SERVICES = [
    Service(module="scheduler_svc", name="sage-scheduler", prefix=scheduler.ENV_PREFIX, reads=scheduler.load),
    Service(
        module="executor_svc",
        name="sage-executor",
        prefix=executor.ENV_PREFIX,
        reads=executor.load,
        needs=("--model", "m", "--engine.kind", "simulated"),
    ),
]


@pytest.fixture(params=SERVICES, ids=[service.module for service in SERVICES])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.param
    return found


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str | bytes], str]:
    def write(content: str | bytes) -> str:
        path = tmp_path / "sage.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


# --- where settings come from ---------------------------------------------------------------------


def test_flags_win_over_environment_which_wins_over_the_file(
    service: Service, file: Callable[[str | bytes], str]
) -> None:
    path = file('drain_timeout_s = 1\nlog_level = "ERROR"\nlog_format = "json"\n')
    config = service.load(
        "--config", path, "--drain-timeout-s", "3", DRAIN_TIMEOUT_S="2", LOG_LEVEL="DEBUG"
    ).model_dump()
    assert (config["drain_timeout_s"], config["log_level"], config["log_format"]) == (3, "DEBUG", "json")


def test_a_section_is_filled_from_all_of_them(service: Service, file: Callable[[str | bytes], str]) -> None:
    path = file("[telemetry]\nsampling_ratio = 0.1\ntrace_push_interval_s = 11\nmetrics_push_interval_s = 12\n")
    variables = {"TELEMETRY__SAMPLING_RATIO": "0.2", "TELEMETRY__TRACE_PUSH_INTERVAL_S": "21"}
    telemetry = service.load("--config", path, "--telemetry.sampling-ratio=0.3", **variables).model_dump()["telemetry"]
    found = (telemetry["sampling_ratio"], telemetry["trace_push_interval_s"], telemetry["metrics_push_interval_s"])
    assert found == (0.3, 21, 12)


def test_the_file_is_named_by_flag_or_variable_and_the_flag_wins(service: Service, tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text("drain_timeout_s = 1")
    two.write_text("drain_timeout_s = 2")
    for config in (
        service.load("--config", str(one)),
        service.load(f"--config={one}"),
        service.load(CONFIG=str(one)),
        service.load("--config", str(one), CONFIG=str(two)),
        service.load("--config", str(two), "--config", str(one)),
    ):
        assert config.model_dump()["drain_timeout_s"] == 1


def test_an_empty_file_changes_nothing(service: Service, file: Callable[[str | bytes], str]) -> None:
    assert service.load("--config", file("")).model_dump() == service.load().model_dump()


def test_variables_have_no_case(service: Service) -> None:
    assert service.load(drain_timeout_s="7").model_dump()["drain_timeout_s"] == 7


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--polizy", "1"), "unrecognized arguments: --polizy 1"),
        (("--telemetry.polizy=1",), "unrecognized arguments: --telemetry.polizy=1"),
        (("--drain-timeout", "1"), "unrecognized arguments: --drain-timeout 1"),  # the beginning of a flag
        (("word",), "unrecognized arguments: word"),
        (("--uvloop=true",), "--uvloop takes no value; off: --no-uvloop"),
        (("--listen",), "argument --listen: expected one argument"),
        (("--config",), "argument --config: expected one argument"),
        (("--listen=nowhere",), "listen: 'nowhere' is not host:port"),
        (("--listen=127.0.0.1:65536",), "listen: '127.0.0.1:65536' is not host:port"),
        (("--listen=::1:80",), "listen: '::1:80' is not host:port"),
        (
            ("--drain-timeout-s=soon",),
            "drain_timeout_s: Input should be a valid number, unable to parse string as a number",
        ),
        (("--drain-timeout-s=-1",), "drain_timeout_s: Input should be greater than or equal to 0"),
        (("--drain-timeout-s=inf",), "drain_timeout_s: Input should be a finite number"),
        (("--log-level=LOUD",), "log_level: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        (("--telemetry.sampling-ratio=2",), "telemetry.sampling_ratio: Input should be less than or equal to 1"),
        (("--tls.certificate=c",), "tls: certificate and private_key go together"),
        (("--tls.private-key=k",), "tls: certificate and private_key go together"),
        (("--config=/no/such.toml",), "config: cannot read '/no/such.toml': No such file or directory"),
        (("--config=/",), "config: cannot read '/': Is a directory"),
        (("--config=",), "config: cannot read '': No such file or directory"),
        (
            ("--listen=0.0.0.0:1",),
            "listen: 0.0.0.0:1 is not loopback: give tls.certificate and tls.private_key, or insecure",
        ),
        (
            ("--telemetry.metrics-listen=[::]:1",),
            "telemetry.metrics_listen: [::]:1 is not loopback: give tls.certificate and tls.private_key, or insecure",
        ),
        (
            ("--drain-timeout-s=-1", "--listen=x"),
            "listen: 'x' is not host:port; drain_timeout_s: Input should be greater than or equal to 0",
        ),
    ],
)
def test_a_wrong_flag(service: Service, flags: tuple[str, ...], said: str) -> None:
    assert sorted(service.complaint(*flags).split("; ")) == sorted(said.split("; "))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("POLIZY", "1", "environment: SAGE_POLIZY is not a setting"),
        ("TELEMETRY_SAMPLING_RATIO", "1", "environment: SAGE_TELEMETRY_SAMPLING_RATIO is not a setting"),
        ("", "1", "environment: SAGE_ is not a setting"),
        ("TELEMETRY__POLIZY", "1", "telemetry.polizy: unknown key"),
        ("LISTEN", "nowhere", "listen: 'nowhere' is not host:port"),
        ("CONFIG", "/no/such.toml", "config: cannot read '/no/such.toml': No such file or directory"),
        ("TELEMETRY", "{", "telemetry: is not JSON"),
    ],
)
def test_a_wrong_variable(service: Service, variable: str, value: str, said: str) -> None:
    assert service.complaint(**{variable: value}) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("polizy = 1", "polizy: unknown key"),
        ("[telemetry]\npolizy = 1", "telemetry.polizy: unknown key"),
        ("[polizy]\nlisten = 1", "polizy: unknown key"),
        ("listen = 50051", "listen: Input should be a valid string"),
        ("telemetry = 3", "telemetry: Input should be a valid dictionary or instance of TelemetrySettings"),
        ("drain_timeout_s = nan", "drain_timeout_s: Input should be a finite number"),
        ('config = "other.toml"', "config: 'FILE' names another file; one file holds all settings"),
        ("listen = ", "config: 'FILE' is not TOML: Invalid value (at end of document)"),
        ("[tls]\n[tls]\n", "config: 'FILE' is not TOML: Cannot declare ('tls',) twice (at line 2, column 5)"),
        (b'listen = "\xff"', "config: 'FILE' is not UTF-8 text: invalid start byte at byte 10"),
        (b"\xff\xfel\x00", "config: 'FILE' is not UTF-8 text: invalid start byte at byte 0"),
    ],
)
def test_a_wrong_file(service: Service, file: Callable[[str | bytes], str], content: str | bytes, said: str) -> None:
    path = file(content)
    assert service.complaint("--config", path).replace(path, "FILE") == said
    assert service.complaint(CONFIG=path).replace(path, "FILE") == said


# --- the process ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"polizy = 1", b"\xff", None], ids=["unknown-key", "not-utf-8", "not-there"])
def test_a_service_says_it_in_one_line_and_ends_with_status_2(
    service: Service, file: Callable[[str | bytes], str], content: bytes | None
) -> None:
    """A supervisor starts a service again that ends with 1, and not one that ends with 2."""
    ended = service.run(CONFIG="/no/such.toml" if content is None else file(content))
    assert ended.returncode == 2
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"{service.name}: configuration: ")


def test_help_names_the_file_and_every_section(service: Service) -> None:
    ended = service.run("--help")
    assert ended.returncode == 0
    for flag in ("--config", "--listen", "--insecure", "--tls.certificate", "--telemetry.otlp-endpoint"):
        assert flag in ended.stdout
    assert f"{service.prefix}CONFIG" in ended.stdout


def test_a_file_name_that_no_file_can_have(service: Service) -> None:
    assert service.complaint("--config", "a\0b").startswith("config: cannot read")
