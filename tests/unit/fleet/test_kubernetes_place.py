"""The place ``kubernetes`` against a stand-in for kubectl, which notes its arguments and answers from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage_fleet.errors import FleetError
from sage_fleet.kubernetes_place.place import KubernetesPlace
from sage_fleet.places.changes import changes
from sage_fleet.places.place_status import PlaceStatus
from sage_fleet.places.versions import group_version, services_version
from sage_fleet.specification.fleet_file import parse_fleet

FLEET = parse_fleet(
    """
place: kubernetes
kubernetes: {namespace: llm, context: there}
groups: {chat: {model: m, count: 2}, scaled: {model: n, min: 1, max: 3}}
"""
)

KUBECTL = """#!/bin/sh
echo "$@" >> "$FOLDER/calls"
shift 4  # namespace and context
case "$1" in
  get) cat "$FOLDER/$2.json" ;;
  apply) cp -r "$3" "$FOLDER/applied" ;;
  scale) if test -e "$FOLDER/refuse"; then echo "no such set" >&2; exit 1; fi ;;
esac
"""


class Cluster:
    """What kubectl was called with, and what it says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "kubectl"
        program.write_text(KUBECTL)
        program.chmod(0o755)
        self.holds([], [])

    def holds(self, sets: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
        (self._folder / "statefulset.json").write_text(json.dumps({"items": sets}))
        (self._folder / "pod.json").write_text(json.dumps({"items": pods}))

    def refuses(self) -> None:
        (self._folder / "refuse").touch()

    def calls(self) -> list[str]:
        """What changed the cluster, without namespace and context."""
        lines = (self._folder / "calls").read_text().splitlines()
        prefix = "--namespace llm --context there "
        assert all(line.startswith(prefix) for line in lines)
        return [line.removeprefix(prefix) for line in lines if " get " not in line and " api-resources " not in line]

    def applied(self, name: str) -> str:
        return (self._folder / "applied" / name).read_text()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    return Cluster(tmp_path)


def stateful_set(name: str, version: str, *, group: str = "", replicas: int = 1) -> dict[str, Any]:
    labels = {"sage/group": group} if group else {}
    meta = {"name": name, "labels": labels, "annotations": {"sage/version": version}}
    return {"metadata": meta, "spec": {"replicas": replicas}}


def pod(group: str, number: int, *, ready: bool = True, ending: bool = False) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": f"executor-{group}-{number}", "labels": {"sage/group": group}}
    if ending:
        meta["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    status = {"phase": "Running", "containerStatuses": [{"ready": ready, "restartCount": 2}]}
    return {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": status}


SCHEDULER = stateful_set("scheduler", services_version(FLEET))
CHAT = stateful_set("executor-chat", group_version(FLEET, "chat"), group="chat", replicas=2)
SCALED = stateful_set("executor-scaled", group_version(FLEET, "scaled"), group="scaled", replicas=3)


async def test_nothing_runs_on_an_empty_cluster(cluster: Cluster) -> None:
    assert await KubernetesPlace(FLEET).status() == PlaceStatus(running=False)


async def test_the_status_is_what_the_cluster_says(cluster: Cluster) -> None:
    pods = [pod("chat", 0), pod("chat", 1, ready=False), pod("chat", 2, ending=True)]
    cluster.holds([SCHEDULER, CHAT, SCALED], pods)
    status = await KubernetesPlace(FLEET).status()
    assert changes(FLEET, status) == ()
    states = [(each.name, each.state, each.where, each.restarts) for each in status.groups["chat"].executors]
    assert states == [
        ("executor-chat-0", "running", "node-1", 2),
        ("executor-chat-1", "starting", "node-1", 2),
        ("executor-chat-2", "draining", "node-1", 2),
    ]


async def test_apply_keeps_the_number_of_a_scaled_group_and_takes_away_one_that_went(cluster: Cluster) -> None:
    old = stateful_set("executor-old", "v", group="old")
    cluster.holds([SCHEDULER, SCALED, old], [])
    await KubernetesPlace(FLEET).apply(FLEET)
    applied, deleted, *waited = cluster.calls()
    assert applied.startswith("apply --kustomize ")
    assert "replicas: 3" in cluster.applied("groups/scaled/kustomization.yaml")
    assert "replicas: 2" in cluster.applied("groups/chat/kustomization.yaml")
    assert deleted.startswith("delete statefulset,service,poddisruptionbudget --selector ")
    assert "sage/group=old" in deleted
    assert [each.partition(" --timeout")[0] for each in waited] == [
        "rollout status statefulset/executor-chat",
        "rollout status statefulset/executor-scaled",
    ]


async def test_a_journal_beside_the_secret_of_a_standby_is_refused(cluster: Cluster) -> None:
    both = FLEET.scheduler.model_copy(update={"standby": True, "journal": "postgresql://db/sage"})
    with pytest.raises(FleetError, match=r"scheduler\.journal: .* the secret sage-journal"):
        await KubernetesPlace(FLEET).apply(FLEET.model_copy(update={"scheduler": both}))


async def test_scaling_changes_the_replicas_of_one_set(cluster: Cluster) -> None:
    place = KubernetesPlace(FLEET)
    await place.scale("scaled", 2)
    assert cluster.calls() == ["scale statefulset/executor-scaled --replicas=2"]
    with pytest.raises(FleetError, match=r"groups\.scaled: 4 is not between 1 and 3"):
        await place.scale("scaled", 4)
    with pytest.raises(FleetError, match=r"groups\.none: there is no such group"):
        await place.scale("none", 1)
    cluster.refuses()
    with pytest.raises(FleetError, match="kubectl scale: no such set"):
        await place.scale("chat", 1)


async def test_delete_leaves_the_namespace_and_its_secrets(cluster: Cluster) -> None:
    await KubernetesPlace(FLEET).delete()
    [deleted] = cluster.calls()
    kinds = deleted.split()[1].split(",")
    assert {"statefulset", "deployment", "service"} <= set(kinds)
    assert not {"namespace", "secret", "persistentvolumeclaim"} & set(kinds)
    assert "--cascade=foreground" in deleted


@pytest.mark.parametrize("printed", ["", "{}", "[]", "certificate expired"])
async def test_what_kubectl_prints_instead_of_objects_is_a_fault_of_the_place(
    cluster: Cluster, tmp_path: Path, printed: str
) -> None:
    """The controller follows on after it."""
    (tmp_path / "statefulset.json").write_text(printed)
    with pytest.raises(FleetError, match="kubectl get: what it printed is no list of objects"):
        await KubernetesPlace(FLEET).status()


async def test_a_kubectl_that_cannot_be_started_is_a_fault_of_the_place(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_bytes(b"\x7fELF")
    with pytest.raises(FleetError, match="kubectl cannot be started: "):
        await KubernetesPlace(FLEET).status()


async def test_without_kubectl_it_names_the_way_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FleetError, match="kubectl is not installed; `sagectl fleet render`"):
        await KubernetesPlace(FLEET).status()
