"""Makes of a fleet an overlay of ``docker/kubernetes``: files that ``kubectl apply -k`` takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sage_fleet.errors import FleetError
from sage_fleet.kubernetes_place import multinode_patch
from sage_fleet.kubernetes_place.executor_patch import GROUP_LABEL, VERSION, Object, stateful_set
from sage_fleet.kubernetes_place.manifests import PARTS, manifests_of
from sage_fleet.places.versions import services_version
from sage_fleet.scheduler_settings import PREFIX, scheduler_settings
from sage_fleet.specification.fleet import Fleet

_OF_GATEWAY = ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")
_API = {"Deployment": "apps/v1", "Service": "v1", "PodDisruptionBudget": "policy/v1"}
_NETWORKING = "networking.k8s.io/v1"


def write_overlay(fleet: Fleet, folder: Path, counts: Mapping[str, int] | None = None) -> None:
    """Write the overlay and the manifests that it stands on into an empty or a new folder.

    ``counts``: executors by group.  Default: the least of each.

    Raises:
        FleetError: the folder has other files, the manifests are not there, or the fleet cannot run on Kubernetes.
    """
    if fleet.scheduler.standby and fleet.scheduler.journal:
        raise FleetError("scheduler.journal: on Kubernetes with a standby the secret sage-journal has its URL")
    source = manifests_of(fleet)
    files = overlay(fleet, counts or {name: group.least for name, group in fleet.groups.items()})
    try:
        if folder.exists() and not (folder / "kustomization.yaml").exists() and any(folder.iterdir()):
            raise FleetError(f"{folder} is not empty, and no overlay")
        for part in PARTS:
            shutil.copytree(source / part, folder / "manifests" / part, dirs_exist_ok=True)
        shutil.rmtree(folder / "groups", ignore_errors=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(content, sort_keys=False, width=120))
    except OSError as error:
        raise FleetError(f"cannot write {error.filename}: {error.strerror}") from error


def overlay(fleet: Fleet, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the overlay's files by their names.  Raises FleetError for a group that cannot run on Kubernetes."""
    files: dict[str, Any] = {"kustomization.yaml": _whole(fleet)}
    for group, count in counts.items():
        files[f"groups/{group}/kustomization.yaml"] = _group(fleet, group, count)
    return files


def workload(fleet: Fleet, group: str) -> str:
    """Return the kind and name of a group's workload, as kubectl takes them."""
    kind = "leaderworkerset" if multinode_patch.is_multinode(fleet, group) else "statefulset"
    return f"{kind}/executor-{group}"


def _whole(fleet: Fleet) -> Object:
    settings = fleet.kubernetes
    components = {
        "standby": fleet.scheduler.standby,
        "monitoring": settings.monitoring,
        "tls": fleet.scheduler.tls is not None,  # last: it gives the monitors TLS
    }
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": settings.namespace,
        "resources": ["manifests/base", *(f"groups/{name}" for name in fleet.groups)],
        "components": [f"manifests/components/{name}" for name, used in components.items() if used],
        "images": [
            _image("sage-scheduler", settings.scheduler_image),
            _image("sage-gateway", settings.gateway_image),
        ],
        "patches": [{"patch": _text(_scheduler(fleet))}, *_gateway(fleet)],
    }


def _group(fleet: Fleet, group: str, count: int) -> Object:
    settings = fleet.kubernetes
    found: Object = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "nameSuffix": f"-{group}",
        "labels": [{"includeSelectors": True, "includeTemplates": True, "pairs": {GROUP_LABEL: group}}],
        "images": [
            _image(
                "sage-executor",
                settings.gpu_executor_image if fleet.groups[group].gpus else settings.executor_image,
            )
        ],
    }
    if multinode_patch.is_multinode(fleet, group):
        multinode_patch.check(fleet, group)
        operations = _text(multinode_patch.leader_worker_set(fleet, group, count))
        patch: Object = {"target": {"kind": "LeaderWorkerSet"}, "patch": operations}
        return found | {"resources": ["../../manifests/multinode"], "patches": [patch]}
    return found | {
        "resources": ["../../manifests/executor"],
        "patches": [{"patch": _text(stateful_set(fleet, group, count))}],
    }


def _scheduler(fleet: Fleet) -> Object:
    scheduler = fleet.scheduler
    values = {f"{PREFIX}POLICY": scheduler.policy}
    if fleet.splits:
        values[f"{PREFIX}PD_SEPARATION__ENABLED"] = "true"
        values[f"{PREFIX}PD_SEPARATION__ROUTING_POLICY"] = "threshold"
    values |= scheduler_settings(fleet)
    container = {"name": "scheduler", "env": [{"name": name, "value": value} for name, value in values.items()]}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "scheduler", "annotations": {VERSION: services_version(fleet)}},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def _gateway(fleet: Fleet) -> list[Object]:
    """Return the patches that give the gateway its replicas, or take it away."""
    if fleet.gateway is not None:
        replicas: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "gateway"}}
        return [{"patch": _text(replicas | {"spec": {"replicas": fleet.gateway.replicas}})}]
    return [
        {
            "patch": _text(
                {
                    "$patch": "delete",
                    "apiVersion": _API.get(kind, _NETWORKING),
                    "kind": kind,
                    "metadata": {"name": "gateway"},
                }
            )
        }
        for kind in _OF_GATEWAY
    ]


def _image(name: str, given: str) -> Object:
    """Return the image's new name and tag; a colon after the last slash begins the tag."""
    head, _, last = given.rpartition("/")
    short, _, tag = last.partition(":")
    found = {"name": name, "newName": f"{head}/{short}" if head else short}
    return found | ({"newTag": tag} if tag else {})


def _text(of: Any) -> str:
    return yaml.safe_dump(of, sort_keys=False, width=120)
