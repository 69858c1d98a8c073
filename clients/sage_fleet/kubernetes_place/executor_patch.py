"""What a group's executors have on Kubernetes beyond those of ``docker/kubernetes/executor``."""

from __future__ import annotations

from typing import Any

from sage_fleet.executor_settings import PREFIX, executor_settings
from sage_fleet.places.versions import group_version
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.group import GroupSection

STOP_MARGIN_S = 30  # an engine takes seconds to end its processes once the drain is over
KV_PORT = 5600
GPU = "nvidia.com/gpu"
GROUP_LABEL = "sage/group"
VERSION = "sage/version"  # annotation with the version of what was applied

Object = dict[str, Any]


def environment(fleet: Fleet, group: str) -> list[Object]:
    """Return the variables of a group's executors, in the form of a container's ``env``."""
    settings = dict(executor_settings(fleet, group))
    if fleet.splits:
        settings[f"{PREFIX}ENGINE__VLLM__KV_TRANSFER__SIDE_CHANNEL_PORT"] = str(KV_PORT)
    found: list[Object] = [{"name": name, "value": value} for name, value in settings.items()]
    if fleet.groups[group].engine == "vllm":
        secret = {"name": "model-hub", "key": "token", "optional": True}
        found.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}})
    return found


def resources(group: GroupSection, gpus: int) -> Object:
    """Return what each pod of a group asks for."""
    limits: Object = {"memory": f"{group.memory_gib}Gi"}
    if gpus:
        limits[GPU] = str(gpus)
    return {"requests": {"cpu": str(group.cpus), "memory": f"{group.memory_gib}Gi"}, "limits": limits}


def placed(fleet: Fleet, group: GroupSection) -> Object:
    """Return on which nodes the pods of a group may run."""
    selector = dict(fleet.kubernetes.node_selector)
    if not group.gpus:
        return {"nodeSelector": selector} if selector else {}
    selector.setdefault("nvidia.com/gpu.present", "true")  # a label of NVIDIA's GPU feature discovery
    return {"nodeSelector": selector, "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]}


def stateful_set(fleet: Fleet, group: str, count: int) -> Object:
    """Return the patch of a group's StatefulSet."""
    described = fleet.groups[group]
    container: Object = {
        "name": "executor",
        "env": environment(fleet, group),
        "resources": resources(described, described.gpus),
    }
    if fleet.splits:
        container["ports"] = [{"name": "kv", "containerPort": KV_PORT}]
    storage = {"requests": {"storage": f"{fleet.kubernetes.storage_gib}Gi"}}
    claim = {"metadata": {"name": "models"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": storage}}
    pod = {
        "terminationGracePeriodSeconds": int(fleet.drain_timeout_s) + STOP_MARGIN_S,
        **placed(fleet, described),
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "executor", "annotations": {VERSION: group_version(fleet, group)}},
        "spec": {"replicas": count, "template": {"spec": pod}, "volumeClaimTemplates": [claim]},
    }
