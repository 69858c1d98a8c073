"""The Kubernetes manifests: schemas take them, and what they say of our services is so."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from executor_svc.config import ConfigError, ExecutorConfig
from executor_svc.config import load as load_executor
from sage_gateway.command_line import parse
from sage_gateway.settings import GatewaySettings
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.config import load as load_scheduler
from tests.integration.stack.kubernetes_manifests import (
    CUSTOM,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    container,
    environment,
    executors,
    files,
    of_kind,
    pod,
    probes,
    rendered,
    workloads,
)

VERSION = "1.31"  # of Kubernetes
STOP_MARGIN_S = 15  # an engine takes seconds to end its processes once the drain is over
PRODUCTION = "production"

FIELDS = {
    "POD_NAME": "scheduler-0",
    "POD_IP": "10.0.0.7",
    "SAGE_EXECUTOR_INSTANCE_ID": "executor-0",
    "SAGE_EXECUTOR_LOCATION__HOST": "node-1",
    "SAGE_SCHEDULER_JOURNAL__URL": "postgresql://sage@db/sage",
    "PGPASSWORD": "secret",
    "HF_TOKEN": "",
}
"""What Kubernetes fills in."""


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    return rendered(request.param)


@pytest.fixture
def production() -> tuple[Manifest, ...]:
    return rendered(PRODUCTION)


def scheduler_config(manifests: tuple[Manifest, ...], tmp_path: Path, monkeypatch: Any) -> SchedulerConfig:
    scheduler = workloads(manifests)["scheduler"]
    [settings] = [each["data"] for name, each in of_kind(manifests, "ConfigMap").items() if "scheduler" in name]
    (tmp_path / "scheduler.toml").write_text(settings["scheduler.toml"])
    for name, value in environment(scheduler, FIELDS).items():
        monkeypatch.setenv(name, value)
    [flag, path] = container(scheduler)["args"]
    return load_scheduler([flag, path.replace("/etc/sage", str(tmp_path))])


def executor_config(workload: Manifest) -> ExecutorConfig:
    return load_executor([], environment(workload, FIELDS))


def gateway_settings(manifests: tuple[Manifest, ...], monkeypatch: Any) -> GatewaySettings:
    gateway = workloads(manifests)["gateway"]
    for name, value in environment(gateway, FIELDS).items():
        monkeypatch.setenv(name, value)
    return parse(container(gateway)["args"])


def test_the_schemas_take_every_file() -> None:
    seen = [
        each
        for path in files()
        for each in yaml.safe_load_all(path.read_text())
        if "kustomize" not in each["apiVersion"]
    ]
    assert len(seen) > 10
    for each in seen:
        kubernetes_validate.validate(each, VERSION, strict=True)


def test_the_schemas_take_what_is_rendered(manifests: tuple[Manifest, ...]) -> None:
    for each in manifests:
        if not each["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(each, VERSION, strict=True)


def test_the_schemas_notice_what_is_wrong() -> None:
    wrong = yaml.safe_load((KUBERNETES / "base" / "gateway.yaml").read_text().split("\n---\n")[0])
    wrong["spec"]["replicsa"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_the_scheduler_takes_every_setting(
    manifests: tuple[Manifest, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = scheduler_config(manifests, tmp_path, monkeypatch)
    assert config.listen == "0.0.0.0:50051"
    assert config.telemetry.metrics_listen == "0.0.0.0:9464"
    assert config.insecure is (config.tls.certificate is None)


def test_executors_take_every_setting(manifests: tuple[Manifest, ...]) -> None:
    assert executors(manifests)
    for each in executors(manifests).values():
        config = executor_config(each)
        assert config.instance_id == "executor-0"
        assert config.engine.vllm.kv_transfer.side_channel_host == "10.0.0.7"
        assert config.insecure is (config.tls.ca is None)


def test_a_setting_that_is_none_would_be_noticed() -> None:
    [executor] = executors(rendered("cpu")).values()
    with pytest.raises(ConfigError, match=r"(?i)polciy"):
        load_executor([], {**environment(executor, FIELDS), "SAGE_EXECUTOR_POLCIY": "fifo"})


def test_executors_and_gateways_are_given_every_scheduler_and_no_other(
    manifests: tuple[Manifest, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = workloads(manifests)["scheduler"]
    service, replicas = scheduler["spec"]["serviceName"], scheduler["spec"]["replicas"]
    assert of_kind(manifests, "Service")[service]["spec"]["publishNotReadyAddresses"], "one that starts is dialled, too"
    names = tuple(f"scheduler-{n}.{service}:50051" for n in range(replicas))
    for each in executors(manifests).values():
        assert executor_config(each).scheduler == names
    assert gateway_settings(manifests, monkeypatch).connection.address == ",".join(names)


def test_several_schedulers_share_a_database_and_tell_their_own_addresses(
    production: tuple[Manifest, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = scheduler_config(production, tmp_path, monkeypatch)
    assert config.leader_lease_s is not None
    assert config.leadership.address == "scheduler-0.scheduler:50051"
    scheduler = workloads(production)["scheduler"]
    assert "volumeClaimTemplates" not in scheduler["spec"]


def test_one_scheduler_keeps_its_state_on_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = rendered("gpu")
    config = scheduler_config(manifests, tmp_path, monkeypatch)
    [claim] = workloads(manifests)["scheduler"]["spec"]["volumeClaimTemplates"]
    mounts = {each["name"]: each["mountPath"] for each in container(workloads(manifests)["scheduler"])["volumeMounts"]}
    assert str(config.state_dir) == mounts[claim["metadata"]["name"]]


def test_every_volume_that_is_claimed_can_be_made(manifests: tuple[Manifest, ...]) -> None:
    for name, each in workloads(manifests).items():
        for claim in each["spec"].get("volumeClaimTemplates", []):
            assert claim["spec"]["accessModes"] == ["ReadWriteOnce"], name
            assert claim["spec"]["resources"]["requests"]["storage"], name


def test_no_update_and_no_eviction_waits_for_a_scheduler_that_stands_by(manifests: tuple[Manifest, ...]) -> None:
    scheduler = workloads(manifests)["scheduler"]
    by_hand = scheduler["spec"].get("updateStrategy", {}).get("type") == "OnDelete"
    assert by_hand is (scheduler["spec"]["replicas"] > 1), "one that stands by is never ready"
    labels = scheduler["spec"]["template"]["metadata"]["labels"].items()
    for budget in of_kind(manifests, "PodDisruptionBudget").values():
        assert not budget["spec"]["selector"]["matchLabels"].items() <= labels


def test_all_may_finish_their_drain_before_they_are_killed(
    manifests: tuple[Manifest, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains = {name: executor_config(each).drain_timeout_s for name, each in executors(manifests).items()}
    drains["scheduler"] = scheduler_config(manifests, tmp_path, monkeypatch).drain_timeout_s
    drains["gateway"] = gateway_settings(manifests, monkeypatch).grace_s
    assert drains.keys() == workloads(manifests).keys()
    for name, each in workloads(manifests).items():
        assert pod(each)["terminationGracePeriodSeconds"] >= drains[name] + STOP_MARGIN_S, name


def test_probes_ask_ports_that_are_served(
    manifests: tuple[Manifest, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = scheduler_config(manifests, tmp_path, monkeypatch)
    port = int(config.listen.rpartition(":")[2])
    for probe in probes(workloads(manifests)["scheduler"]):
        assert ("grpc" in probe) is config.insecure, "Kubernetes' own probe knows no TLS"
        asked = probe["grpc"]["port"] if config.insecure else int(probe["exec"]["command"][2].rpartition(":")[2])
        assert asked == port
        assert config.insecure or str(config.tls.certificate).startswith(
            Path(probe["exec"]["command"][4]).parent.as_posix()
        )


def test_only_a_scheduler_that_leads_is_ready(manifests: tuple[Manifest, ...]) -> None:
    probe = container(workloads(manifests)["scheduler"])["readinessProbe"]
    service = "sage.controlplane.v1.AdminService"  # that of applications is served only once an engine is ready
    assert probe.get("grpc", {}).get("service") == service or service in probe["exec"]["command"]


def test_every_secret_and_file_that_is_named_is_mounted(
    production: tuple[Manifest, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = gateway_settings(production, monkeypatch)
    config = scheduler_config(production, tmp_path, monkeypatch)
    [executor] = executors(production).values()
    asked = {
        "scheduler": [config.tls.certificate, config.tls.private_key, config.access.keys_file],
        "gateway": [gateway.tls_cert, gateway.tls_key, gateway.connection.tls_ca, gateway.connection.token_file],
        "executor": [executor_config(executor).tls.ca, executor_config(executor).token_file],
    }
    for name, paths in asked.items():
        workload = workloads(production)[name]
        secrets = {each["name"]: each["secret"] for each in pod(workload)["volumes"] if "secret" in each}
        mounted = {
            each["mountPath"]: secrets[each["name"]]
            for each in container(workload)["volumeMounts"]
            if each["name"] in secrets
        }
        for path in paths:
            secret = mounted[Path(str(path)).parent.as_posix()]
            assert Path(str(path)).name in {each["path"] for each in secret.get("items", [])} | {
                "tls.crt",
                "tls.key",
                "ca.crt",
            }


def test_the_secrets_can_be_read_by_the_user_that_runs(production: tuple[Manifest, ...]) -> None:
    for name, each in workloads(production).items():
        modes = [volume["secret"]["defaultMode"] for volume in pod(each)["volumes"] if "secret" in volume]
        assert modes, name
        assert all(mode & 0o040 for mode in modes), name
        assert pod(each)["securityContext"].get("fsGroup"), f"{name}: they are root's and the group's"


def test_prefill_and_decode_are_two_groups_that_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = rendered("split")
    configs = {name: executor_config(each) for name, each in executors(manifests).items()}
    assert {name: config.role for name, config in configs.items()} == {
        "executor-prefill": "prefilling",
        "executor-decode": "decoding",
    }
    assert {config.engine.vllm.kv_transfer.connector for config in configs.values()} == {"NixlConnector"}
    assert scheduler_config(manifests, tmp_path, monkeypatch).pd_separation.enabled
    selectors = [str(each["spec"]["selector"]) for each in executors(manifests).values()]
    assert len(set(selectors)) == 2, "a group's pods are its own"


def test_keda_asks_for_a_model_and_role_that_the_scheduler_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = rendered("autoscaled")
    scaling = scheduler_config(manifests, tmp_path, monkeypatch).scaling
    [scaled] = of_kind(manifests, "ScaledObject").values()
    target, [trigger] = scaled["spec"]["scaleTargetRef"], scaled["spec"]["triggers"]
    host, _, port = trigger["metadata"]["scalerAddress"].partition(":")
    [workload] = executors(manifests).values()
    assert target == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": workload["metadata"]["name"]}
    assert "replicas" not in workload["spec"]
    assert scaling.enabled
    bounds = scaling.models[trigger["metadata"]["model"]][trigger["metadata"]["role"]]
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (bounds.min, bounds.max)
    assert trigger["metadata"]["model"] == executor_config(workload).engine.model.model
    assert (host, int(port)) == ("sage.sage", 50051), "the service of the scheduler that leads"
    assert trigger["type"] == "external-push"


@pytest.mark.parametrize("overlay", ["gpu", "split", "autoscaled", PRODUCTION])
def test_every_engine_has_a_gpu(overlay: str) -> None:
    for each in executors(rendered(overlay)).values():
        assert container(each)["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert container(each)["image"] == "sage-executor:gpu"


def test_nothing_runs_as_root_or_may_become_it(manifests: tuple[Manifest, ...]) -> None:
    for name, each in workloads(manifests).items():
        assert pod(each)["securityContext"]["runAsNonRoot"] is True, name
        for one in [*pod(each)["containers"], *pod(each).get("initContainers", [])]:
            assert one["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name


def test_monitors_find_ports_that_exist_and_keep_the_alerts_names_of_jobs(production: tuple[Manifest, ...]) -> None:
    for monitor in of_kind(production, "PodMonitor").values():
        assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        found = [
            each
            for each in workloads(production).values()
            if wanted <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert any(endpoint["port"] in {port["name"] for port in container(each)["ports"]} for each in found)
        assert endpoint["scheme"] == "https"
    jobs = {
        each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        for each in workloads(production).values()
    }
    assert jobs == {"scheduler", "executor", "gateway"}


def test_the_alerts_are_those_of_the_compose_stack() -> None:
    script = runpy.run_path(str(KUBERNETES / "write_alerts.py"))
    assert script["WRITTEN"].read_text() == script["manifest"](), "run docker/kubernetes/write_alerts.py"
    assert yaml.safe_load(script["manifest"]())["spec"] == yaml.safe_load(script["ALERTS"].read_text())
