"""The section ``telemetry`` of both services."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from executor_svc.config import load as load_executor
from executor_svc.wiring import _engine_settings
from sage_common.configuration import ConfigError
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.settings import TelemetrySettings
from scheduler_svc.config import load as load_scheduler

EXECUTOR = ["--model", "sim", "--engine.kind", "simulated"]


def test_everything_is_off_by_default() -> None:
    settings = TelemetrySettings()
    assert not settings.on
    assert not settings.content


@pytest.mark.parametrize(
    ("url", "target", "secure"),
    [
        ("http://collector:4317", "collector:4317", False),
        ("https://collector", "collector:4317", True),
        ("http://[::1]:55", "[::1]:55", False),
    ],
)
def test_an_otlp_endpoint_is_a_url_without_a_path(url: str, target: str, secure: bool) -> None:
    assert OtlpEndpoint.parse(url) == OtlpEndpoint(target, secure)


@pytest.mark.parametrize(
    "url", ["collector:4317", "grpc://collector:4317", "http://collector:4318/v1/traces", "http://"]
)
def test_any_other_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="http"):
        TelemetrySettings(otlp_endpoint=url)


def test_a_password_in_an_endpoint_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="has a user name or a password") as refused:
        load_scheduler(["--telemetry.otlp-endpoint", "http://user:hunter2@collector:4317"])
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--telemetry.metrics-listen", "0.0.0.0:9464"), ("--telemetry.otlp-endpoint", "http://collector:4317")],
)
def test_beyond_loopback_takes_tls_or_insecure(flag: str, value: str) -> None:
    with pytest.raises(ConfigError, match="is not loopback"):
        load_scheduler([flag, value])
    with pytest.raises(ConfigError, match="is not loopback"):
        load_executor([*EXECUTOR, flag, value], environment={})
    assert load_scheduler([flag, value, "--insecure"]).telemetry.on
    assert load_executor([*EXECUTOR, flag, value, "--insecure"], environment={}).telemetry.on


def test_the_environment_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_SCHEDULER_TELEMETRY__SAMPLING_RATIO", "0.25")
    assert load_scheduler([]).telemetry.sampling_ratio == 0.25
    found = load_executor(EXECUTOR, environment={"SAGE_EXECUTOR_TELEMETRY__METRICS_LISTEN": "127.0.0.1:0"})
    assert found.telemetry.metrics_listen == "127.0.0.1:0"


def test_the_file_fills_it(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.toml"
    file.write_text('[telemetry]\nresource = {"deployment.environment.name" = "lab"}\n')
    assert load_scheduler(["--config", str(file)]).telemetry.resource == {"deployment.environment.name": "lab"}


def test_vllms_own_spans_go_where_ours_go_unless_told_otherwise() -> None:
    ours = ["--telemetry.otlp-endpoint", "http://127.0.0.1:4317"]
    config = load_executor([*EXECUTOR, *ours], environment={})
    assert _engine_settings(config).vllm.traces_endpoint == "http://127.0.0.1:4317"
    config = load_executor([*EXECUTOR, *ours, "--engine.vllm.traces-endpoint", "http://127.0.0.1:5"], environment={})
    assert _engine_settings(config).vllm.traces_endpoint == "http://127.0.0.1:5"
