"""The compose file: compose itself takes it, and what it says of our services is so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from executor_svc.config import ConfigError, ExecutorConfig
from executor_svc.config import load as load_executor
from sage_gateway.command_line import parse
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.config import load as load_scheduler
from tests.integration.stack.shipped import DOCKER, ROOT, read_yaml
from tests.integration.stack.tool import compose

EXECUTORS = {"cpu": 2, "gpu": 2, "one-gpu": 1}  # by profile
STOP_MARGIN_S = 15  # an engine takes seconds to end its processes once the drain is over


def resolved(profile: str, file: Path = DOCKER / "compose.yaml") -> dict[str, Any]:
    """The services as compose would start them."""
    made = compose("-f", str(file), "--profile", profile, "config", folder=DOCKER)
    assert made.returncode == 0, made.stderr
    services: dict[str, Any] = yaml.safe_load(made.stdout)["services"]
    return {name: each for name, each in services.items() if profile in each.get("profiles", [profile])}


@pytest.fixture(scope="module", params=EXECUTORS)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def services(profile: str) -> dict[str, Any]:
    return resolved(profile)


def executors(services: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in services.items() if name.startswith("executor-")}


def configured(environment: Mapping[str, Any]) -> ExecutorConfig:
    return load_executor([], {name: str(value) for name, value in environment.items()})


def scheduler_config(services: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> SchedulerConfig:
    for name, value in services["scheduler"]["environment"].items():
        monkeypatch.setenv(name, str(value))
    return load_scheduler([])


def test_compose_notices_what_is_wrong(tmp_path: Path) -> None:
    text = (DOCKER / "compose.yaml").read_text()
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(text.replace("restart: unless-stopped", "restrat: unless-stopped"))
    assert compose("-f", str(wrong), "config", folder=DOCKER).returncode != 0


def test_everything_that_is_to_be_there_is_there(profile: str, services: dict[str, Any]) -> None:
    assert services.keys() >= {"scheduler", "otel-collector", "jaeger", "prometheus", "grafana"}
    assert len(executors(services)) == EXECUTORS[profile]


def test_the_scheduler_takes_every_setting_it_is_given(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = scheduler_config(services, monkeypatch)
    assert config.telemetry.metrics_listen == "0.0.0.0:9464"
    assert config.telemetry.otlp_endpoint == "http://otel-collector:4317"


def test_the_executors_take_every_setting_they_are_given(services: dict[str, Any]) -> None:
    configs = [configured(each["environment"]) for each in executors(services).values()]
    assert len({config.instance_id for config in configs}) == len(configs)
    for config in configs:
        assert config.scheduler == ("scheduler:50051",)
        assert config.telemetry.metrics_listen == "0.0.0.0:9464"
        assert config.engine.vllm.traces_endpoint == config.telemetry.otlp_endpoint == "http://otel-collector:4317"


def test_a_setting_that_is_none_would_be_noticed(services: dict[str, Any]) -> None:
    environment = next(iter(executors(services).values()))["environment"]
    with pytest.raises(ConfigError, match=r"(?i)polciy"):
        configured({**environment, "SAGE_EXECUTOR_POLCIY": "fifo"})


def test_a_service_may_finish_its_drain_before_it_is_killed(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = scheduler_config(services, monkeypatch)
    assert seconds(services["scheduler"]["stop_grace_period"]) >= scheduler.drain_timeout_s + STOP_MARGIN_S
    for each in executors(services).values():
        drain = configured(each["environment"]).drain_timeout_s
        assert seconds(each["stop_grace_period"]) >= drain + STOP_MARGIN_S


def test_the_collector_waits_for_a_trace_until_the_request_must_have_ended(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = read_yaml(DOCKER / "otel-collector" / "config.yaml")["processors"]["tail_sampling"]
    after_root = seconds(sampling["decision_wait_after_root_received"])
    longest = scheduler_config(services, monkeypatch).queue.default_deadline_s
    assert after_root > 0
    assert seconds(sampling["decision_wait"]) >= longest + after_root


def seconds(text: str) -> float:
    """``90s``, ``1m30s``."""
    minutes, _, rest = text.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s") or 0)


def test_the_gateway_takes_every_flag_it_is_given(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = services["gateway"]
    for name, value in gateway["environment"].items():
        monkeypatch.setenv(name, value)
    settings = parse(gateway["command"])
    assert settings.connection.address == "scheduler:50051"
    [port] = gateway["ports"]  # a text or an object, by the version of compose
    target = port.rpartition(":")[2].removesuffix("/tcp") if isinstance(port, str) else port["target"]
    assert settings.port == int(target)
    assert seconds(gateway["stop_grace_period"]) >= settings.grace_s + STOP_MARGIN_S


def test_every_image_is_pinned_or_built_here(services: dict[str, Any]) -> None:
    for name, each in services.items():
        version = each["image"].partition(":")[2]
        assert "build" in each or (version and version != "latest"), name


def test_every_service_restarts_has_a_network_and_is_health_checked(services: dict[str, Any]) -> None:
    for name, each in services.items():
        if name == "tiny-model":
            continue  # makes its files and ends
        assert each["restart"] == "unless-stopped", name
        assert list(each["networks"]) == ["sage"], name
        assert "healthcheck" in each or "HEALTHCHECK" in dockerfile(each["build"]), name


def dockerfile(build: Mapping[str, str]) -> str:
    return (Path(build["context"]) / build.get("dockerfile", "Dockerfile")).read_text()


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    for name, each in services.items():
        for port in each.get("ports", []):
            address = port if isinstance(port, str) else str(port.get("host_ip"))
            assert address.startswith("127.0.0.1"), name


def test_cpu_executors_share_no_core() -> None:
    bound = [each["cpuset"] for each in executors(resolved("cpu")).values()]
    asked = [configured(each["environment"]).engine.vllm.cpu_cores for each in executors(resolved("cpu")).values()]
    assert bound == asked
    assert len(set(bound)) == 2


def test_the_profile_standby_adds_an_equal_scheduler_and_their_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_JOURNAL_URL", "postgresql://sage@postgres/sage")
    monkeypatch.setenv("SAGE_SCHEDULERS", "scheduler:50051,scheduler-standby:50051")
    services = resolved("standby")
    one, two = services["scheduler"], services["scheduler-standby"]
    own = "SAGE_SCHEDULER_LEADERSHIP__ADDRESS"
    addresses = [each["environment"].pop(own) for each in (one, two)]
    assert one["environment"] == two["environment"]
    config = scheduler_config(services, monkeypatch)
    assert config.leader_lease_s == 2
    for each in executors(resolved("cpu")).values():
        assert list(configured(each["environment"]).scheduler) == addresses
    database = services["postgres"]
    assert database["environment"]["POSTGRES_PASSWORD"] == one["environment"]["PGPASSWORD"]
    assert "ports" not in database


def test_compose_takes_the_file_for_cloudwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("-f", str(DOCKER / "compose.yaml"), "-f", str(DOCKER / "compose.cloudwatch.yaml"))
    monkeypatch.delenv("AWS_REGION", raising=False)
    assert "AWS_REGION" in compose(*files, "config", folder=DOCKER).stderr
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    made = compose(*files, "config", folder=DOCKER)
    assert made.returncode == 0, made.stderr
    collector = yaml.safe_load(made.stdout)["services"]["otel-collector"]
    assert collector["environment"].keys() >= {"AWS_REGION", "SAGE_TRACE_SLOW_MS"}


def test_gpu_executors_have_a_gpu_a_role_and_a_side_channel_of_their_own() -> None:
    services = resolved("gpu")
    devices = []
    for each in executors(services).values():
        config = configured(each["environment"])
        transfer = config.engine.vllm.kv_transfer
        assert transfer.connector == "NixlConnector"
        assert transfer.side_channel_host == each["networks"]["sage"]["ipv4_address"]
        assert str(transfer.side_channel_port) in [str(port) for port in each["expose"]]
        devices += [d["device_ids"] for d in each["deploy"]["resources"]["reservations"]["devices"]]
    assert [configured(e["environment"]).role for e in executors(services).values()].count("prefilling") == 1
    assert {configured(e["environment"]).role for e in executors(services).values()} == {"prefilling", "decoding"}
    assert sorted(devices) == [["0"], ["1"]]


def test_the_only_gpu_serves_whole_requests() -> None:
    [executor] = executors(resolved("one-gpu")).values()
    config = configured(executor["environment"])
    assert (config.role, config.engine.vllm.kv_transfer.connector) == ("general", "")
    [device] = executor["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["0"]


def test_every_variable_of_the_file_has_a_value_or_a_default() -> None:
    lines = (DOCKER / ".env").read_text().splitlines()
    given = {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}
    text = (DOCKER / "compose.yaml").read_text()
    asked = {part.partition("}")[0] for part in text.split("${")[1:]}
    assert {name for name in asked if ":-" not in name} <= given
    assert given - {"COMPOSE_PROJECT_NAME"} <= asked, "a value that nothing asks for"


def test_every_mounted_file_is_there() -> None:
    for service in read_yaml(DOCKER / "compose.yaml")["services"].values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (DOCKER / volume.partition(":")[0]).exists(), volume
    assert (ROOT / ".dockerignore").is_file()
