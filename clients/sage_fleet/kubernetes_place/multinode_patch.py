"""An engine over several nodes: a LeaderWorkerSet, whose leader runs the executor and vLLM's Ray backend."""

from __future__ import annotations

import json

from sage_fleet.errors import FleetError
from sage_fleet.executor_settings import PREFIX
from sage_fleet.kubernetes_place.executor_patch import STOP_MARGIN_S, VERSION, Object, environment, placed, resources
from sage_fleet.places.versions import group_version
from sage_fleet.specification.fleet import Fleet

_TEMPLATES = ("leaderTemplate", "workerTemplate")
_ENGINE_ARGS = f"{PREFIX}ENGINE__VLLM__ENGINE_ARGS"


def is_multinode(fleet: Fleet, group: str) -> bool:
    """Return whether an engine of this group has more GPUs than a node."""
    return fleet.groups[group].gpus > fleet.kubernetes.gpus_per_node


def check(fleet: Fleet, group: str) -> None:
    """Raise FleetError for a group that cannot run over several nodes."""
    gpus, per_node = fleet.groups[group].gpus, fleet.kubernetes.gpus_per_node
    if gpus % per_node:
        raise FleetError(f"groups.{group}.gpus: {gpus} is no multiple of kubernetes.gpus_per_node, which is {per_node}")
    if fleet.scheduler.tls is not None or fleet.scheduler.standby:
        raise FleetError(f"groups.{group}: an engine over several nodes goes with neither scheduler.tls nor standby")


def leader_worker_set(fleet: Fleet, group: str, count: int) -> list[Object]:
    """Return the operations that make a group's set of the one in ``docker/kubernetes/multinode``."""
    described = fleet.groups[group]
    template = "/spec/leaderWorkerTemplate"
    found: list[Object] = [
        {"op": "add", "path": "/metadata/annotations", "value": {VERSION: group_version(fleet, group)}},
        {"op": "replace", "path": "/spec/replicas", "value": count},
        {"op": "replace", "path": f"{template}/size", "value": described.gpus // fleet.kubernetes.gpus_per_node},
    ]
    for part in _TEMPLATES:
        pod = f"{template}/{part}/spec"
        needed = resources(described, fleet.kubernetes.gpus_per_node)
        added = {f"{pod}/{name}": value for name, value in placed(fleet, described).items()}
        added[f"{pod}/containers/0/resources"] = needed
        added[f"{template}/{part}/metadata/labels/sage~1group"] = group  # kustomize labels no pods of this kind
        found += [{"op": "add", "path": path, "value": value} for path, value in added.items()]
    grace = int(fleet.drain_timeout_s) + STOP_MARGIN_S
    leader = f"{template}/leaderTemplate/spec"
    found.append({"op": "replace", "path": f"{leader}/terminationGracePeriodSeconds", "value": grace})
    found += [
        {"op": "add", "path": f"{leader}/containers/0/env/-", "value": variable}
        for variable in _over_ray(environment(fleet, group))
    ]
    return found


def _over_ray(variables: list[Object]) -> list[Object]:
    """Return the variables with vLLM's Ray backend among its arguments."""
    given: Object = next((json.loads(each["value"]) for each in variables if each["name"] == _ENGINE_ARGS), {})
    own = {"name": _ENGINE_ARGS, "value": json.dumps({"distributed_executor_backend": "ray"} | given)}
    return [*(each for each in variables if each["name"] != _ENGINE_ARGS), own]
