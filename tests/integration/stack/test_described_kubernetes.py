"""A described fleet as Kubernetes manifests: rendered by kubectl, validated, and read by our services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from executor_svc.config import ExecutorConfig
from executor_svc.config import load as load_executor
from sage_fleet.errors import FleetError
from sage_fleet.kubernetes_place.overlay import write_overlay
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.fleet_file import parse_fleet
from scheduler_svc.config import load as load_scheduler
from tests.integration.stack.kubernetes_manifests import (
    CUSTOM,
    Manifest,
    container,
    environment,
    executors,
    of_kind,
    pod,
    rendered_at,
    workloads,
)
from tests.integration.stack.leader_worker_set import validate as validate_set
from tests.integration.stack.test_kubernetes import FIELDS, STOP_MARGIN_S, VERSION

FLEET = """
place: kubernetes
drain_timeout_s: 100
scheduler: {policy: slo_aware, settings: {queue: {limit_per_model: 77}}}
gateway: {address: "0.0.0.0:8000", replicas: 3}
kubernetes:
  namespace: llm
  executor_image: reg.example:5000/x/executor:2
  gateway_image: reg.example:5000/x/gateway
  monitoring: true
  node_selector: {pool: fast}
groups:
  chat: {model: org/chat, gpus: 1, count: 2, cpus: 4, memory_gib: 32, engine_arguments: {max_model_len: 8192}}
  prefill: {model: org/chat, gpus: 2, tensor_parallel: 2, role: prefilling, min: 1, max: 4}
  decode: {model: org/chat, gpus: 1, role: decoding, min: 0, max: 4, zone: z1}
  vectors: {model: org/vectors, role: embedding}
  giant:
    model: org/giant
    gpus: 16
    tensor_parallel: 8
    pipeline_parallel: 2
    engine_arguments: {engine_args: {max_logprobs: 5}}
"""
TLS = "tls: {ca: a, certificate: b, private_key: c}"


def render(text: str | Fleet, folder: Path, **counts: int) -> tuple[Manifest, ...]:
    fleet = text if isinstance(text, Fleet) else parse_fleet(text)
    given = {name: group.least for name, group in fleet.groups.items()} | counts
    write_overlay(fleet, folder, given)
    return rendered_at(folder)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, ...]:
    return render(FLEET, tmp_path_factory.mktemp("overlay"))


def config(workload: Manifest) -> ExecutorConfig:
    return load_executor([], environment(workload, FIELDS))


def validated(manifests: tuple[Manifest, ...]) -> None:
    for each in manifests:
        if each["kind"] == "LeaderWorkerSet":
            validate_set(each, VERSION)
        elif not each["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(each, VERSION, strict=True)


def test_the_schemas_take_what_is_rendered(manifests: tuple[Manifest, ...]) -> None:
    validated(manifests)


@pytest.mark.parametrize(
    "scheduler", [f"scheduler: {{{TLS}}}", "scheduler: {standby: true}", f"scheduler: {{standby: true, {TLS}}}"]
)
def test_the_schemas_take_it_with_standby_and_tls(scheduler: str, tmp_path: Path) -> None:
    manifests = render(f"{scheduler}\ngroups: {{chat: {{model: m}}}}", tmp_path)
    validated(manifests)
    [executor] = executors(manifests).values()
    assert config(executor).insecure is ("tls" not in scheduler)
    assert workloads(manifests)["scheduler"]["spec"]["replicas"] == (2 if "standby" in scheduler else 1)


def test_each_group_is_a_stateful_set_of_its_own(manifests: tuple[Manifest, ...]) -> None:
    found = {name: each["spec"]["replicas"] for name, each in executors(manifests).items()}
    assert found == {"executor-chat": 2, "executor-prefill": 1, "executor-decode": 0, "executor-vectors": 1}
    assert len({str(each["spec"]["selector"]) for each in executors(manifests).values()}) == 4
    assert {each["metadata"].get("namespace") for each in manifests if each["kind"] != "Namespace"} == {"llm"}
    assert set(of_kind(manifests, "Namespace")) == {"llm"}


def test_executors_take_what_their_group_says(manifests: tuple[Manifest, ...]) -> None:
    found = {name: config(each) for name, each in executors(manifests).items()}
    chat, prefill, decode = (found[f"executor-{name}"] for name in ("chat", "prefill", "decode"))
    assert (chat.engine.model.model, chat.engine.vllm.max_model_len) == ("org/chat", 8192)
    assert (prefill.role, prefill.engine.vllm.tensor_parallel_size) == ("prefilling", 2)
    assert (decode.role, decode.location.zone) == ("decoding", "z1")
    assert {each.engine.vllm.kv_transfer.connector for each in (chat, prefill, decode)} == {"NixlConnector"}
    assert decode.engine.vllm.kv_transfer.side_channel_port == 5600
    assert all(each.instance_id and each.insecure and each.drain_timeout_s == 100 for each in found.values())


def test_pods_have_the_room_and_the_image_of_their_group(manifests: tuple[Manifest, ...]) -> None:
    chat, vectors = (executors(manifests)[f"executor-{name}"] for name in ("chat", "vectors"))
    assert container(chat)["resources"] == {
        "requests": {"cpu": "4", "memory": "32Gi"},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
    }
    assert (container(chat)["image"], container(vectors)["image"]) == (
        "sage-executor:gpu",
        "reg.example:5000/x/executor:2",
    )
    assert pod(chat)["nodeSelector"] == {"pool": "fast", "nvidia.com/gpu.present": "true"}
    assert pod(vectors)["nodeSelector"] == {"pool": "fast"}
    assert pod(chat)["terminationGracePeriodSeconds"] >= 100 + STOP_MARGIN_S


def test_the_scheduler_and_the_gateway_take_what_the_file_says(
    manifests: tuple[Manifest, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(workloads(manifests)["scheduler"], FIELDS).items():
        monkeypatch.setenv(name, value)
    scheduler = load_scheduler([])
    assert (scheduler.policy, scheduler.queue.limit_per_model) == ("slo_aware", 77)
    assert scheduler.pd_separation.enabled
    assert set(scheduler.scaling.models["org/chat"]) == {"prefilling", "decoding"}
    gateway = workloads(manifests)["gateway"]
    assert (gateway["spec"]["replicas"], container(gateway)["image"]) == (3, "reg.example:5000/x/gateway")


def test_an_engine_over_several_nodes_is_a_leader_worker_set(manifests: tuple[Manifest, ...]) -> None:
    [giant] = of_kind(manifests, "LeaderWorkerSet").values()
    template = giant["spec"]["leaderWorkerTemplate"]
    assert (giant["metadata"]["name"], giant["spec"]["replicas"], template["size"]) == ("executor-giant", 1, 2)
    leader, worker = template["leaderTemplate"], template["workerTemplate"]
    for each in (leader, worker):
        assert each["metadata"]["labels"]["sage/group"] == "giant"
        assert each["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
        assert each["spec"]["securityContext"]["runAsNonRoot"] is True
    taken = config({"spec": {"template": leader}})
    assert (taken.engine.vllm.tensor_parallel_size, taken.engine.vllm.pipeline_parallel_size) == (8, 2)
    assert taken.engine.vllm.engine_args == {"distributed_executor_backend": "ray", "max_logprobs": 5}
    assert leader["spec"]["terminationGracePeriodSeconds"] >= 100 + STOP_MARGIN_S
    selector = of_kind(manifests, "Service")["executor-metrics-giant"]["spec"]["selector"]
    assert selector.items() <= leader["metadata"]["labels"].items()


def test_a_wrong_set_would_be_noticed(manifests: tuple[Manifest, ...]) -> None:
    wrong: Any = json.loads(json.dumps(of_kind(manifests, "LeaderWorkerSet")["executor-giant"]))
    wrong["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]["contaners"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        validate_set(wrong, VERSION)


def test_a_fleet_without_a_gateway_has_none(tmp_path: Path) -> None:
    manifests = render("groups: {chat: {model: m}}", tmp_path)
    assert [each["kind"] for each in manifests if each["metadata"]["name"] == "gateway"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "kubernetes: {gpus_per_node: 8}\ngroups: {a: {model: m, gpus: 12, tensor_parallel: 12}}",
            "groups.a.gpus: 12 is no multiple of kubernetes.gpus_per_node, which is 8",
        ),
        (
            "scheduler: {standby: true}\ngroups: {a: {model: m, gpus: 16, tensor_parallel: 16}}",
            "groups.a: an engine over several nodes goes with neither",
        ),
        ("kubernetes: {manifests: /none}\ngroups: {a: {model: m}}", "kubernetes.manifests: /none has no folder base"),
    ],
)
def test_what_cannot_run_on_kubernetes_is_refused_by_name(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=said):
        write_overlay(parse_fleet(text), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FleetError, match="is not empty, and no overlay"):
        write_overlay(parse_fleet("groups: {a: {model: m}}"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_overlay_is_written_again_without_groups_that_went(tmp_path: Path) -> None:
    render("groups: {a: {model: m}, b: {model: n}}", tmp_path)
    manifests = render("groups: {a: {model: m}}", tmp_path, a=4)
    assert {name: each["spec"]["replicas"] for name, each in executors(manifests).items()} == {"executor-a": 4}
