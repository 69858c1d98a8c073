"""The place ``kubernetes``: an overlay of our manifests, applied by kubectl."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage_fleet.kubernetes_place.executor_patch import GROUP_LABEL, STOP_MARGIN_S, VERSION
from sage_fleet.kubernetes_place.kubectl import TIMEOUT_S, Kubectl
from sage_fleet.kubernetes_place.overlay import workload, write_overlay
from sage_fleet.places.place_status import ExecutorState, ExecutorStatus, GroupStatus, PlaceStatus
from sage_fleet.places.scale_check import check_scale
from sage_fleet.specification.fleet import Fleet

OURS = "app.kubernetes.io/part-of=sage"
OF_GROUP = ("service", "poddisruptionbudget")  # what a group has beside its workload
KINDS = ("deployment", "service", "poddisruptionbudget", "networkpolicy", "configmap")
SET = "leaderworkerset"  # a kind that exists only where its controller is installed


class KubernetesPlace:
    """Runs a fleet on a Kubernetes cluster; implements ``Place``.

    The namespace, its secrets and the volumes with the models are not ended by ``delete``.
    """

    def __init__(self, fleet: Fleet) -> None:
        """Build it; nothing is asked."""
        self._fleet = fleet
        self._kubectl = Kubectl(fleet.kubernetes)

    async def apply(self, fleet: Fleet) -> None:
        """Make the cluster run ``fleet``; return once all pods of its executors are ready.  Raises FleetError."""
        self._fleet = fleet
        before = (await self.status()).groups
        counts = {
            name: group.bounded(before[name].wanted if name in before else group.least)
            for name, group in fleet.groups.items()
        }
        with tempfile.TemporaryDirectory(prefix="sage-fleet-") as folder:
            write_overlay(fleet, Path(folder), counts)
            await self._kubectl.run("apply", "--kustomize", folder)
        for gone in before.keys() - fleet.groups.keys():
            await self._delete(f"{OURS},{GROUP_LABEL}={gone}", (*await self._workloads(), *OF_GROUP))
        for name, count in counts.items():
            await self._until_ready(name, count)

    async def status(self) -> PlaceStatus:
        """Return what runs now, as the cluster says.  Raises FleetError."""
        sets = await self._kubectl.objects(",".join(await self._workloads()), OURS)
        pods = await self._kubectl.objects("pod", f"{OURS},{GROUP_LABEL}")
        schedulers = [each for each in sets if each["metadata"]["name"] == "scheduler"]
        groups = {group: each for each in sets if (group := _labels(each).get(GROUP_LABEL))}
        return PlaceStatus(
            running=bool(schedulers),
            services=_version(schedulers[0]) if schedulers else "",
            groups={group: _group_status(group, each, pods) for group, each in sorted(groups.items())},
        )

    async def scale(self, group: str, count: int, remove_first: Sequence[str] = ()) -> None:
        """Give a group ``count`` executors; a StatefulSet ends the highest numbers.  Raises FleetError."""
        check_scale(self._fleet, group, count)
        await self._kubectl.run("scale", workload(self._fleet, group), f"--replicas={count}")

    async def delete(self) -> None:
        """Drain and end all pods; the namespace, secrets and volumes stay.  Raises FleetError."""
        await self._delete(OURS, (*await self._workloads(), *KINDS))

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def _workloads(self) -> tuple[str, ...]:
        """Return the kinds of workloads that a group may be here."""
        known = await self._kubectl.run("api-resources", f"--api-group={SET}.x-k8s.io", "--output=name")
        return ("statefulset", SET) if known.strip() else ("statefulset",)

    async def _delete(self, selector: str, kinds: Sequence[str]) -> None:
        bound_s = self._fleet.drain_timeout_s + STOP_MARGIN_S
        await self._kubectl.run(
            *("delete", ",".join(kinds), "--selector", selector, "--ignore-not-found", "--cascade=foreground"),
            *("--wait", f"--timeout={int(bound_s + TIMEOUT_S)}s"),
            timeout_s=bound_s + 2 * TIMEOUT_S,
        )

    async def _until_ready(self, group: str, count: int) -> None:
        of = workload(self._fleet, group)
        bound_s = self._fleet.start_timeout_s + count * (self._fleet.drain_timeout_s + STOP_MARGIN_S)
        if of.startswith(SET):
            wait = ("wait", of, f"--for=jsonpath={{.status.readyReplicas}}={count}")
        else:
            wait = ("rollout", "status", of)
        await self._kubectl.run(*wait, f"--timeout={int(bound_s)}s", timeout_s=bound_s + TIMEOUT_S)


def _labels(of: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = of["metadata"].get("labels", {})
    return found


def _version(of: dict[str, Any]) -> str:
    found: str = of["metadata"].get("annotations", {}).get(VERSION, "")
    return found


def _group_status(group: str, found: dict[str, Any], pods: Sequence[dict[str, Any]]) -> GroupStatus:
    own = [each for each in pods if _labels(each).get(GROUP_LABEL) == group]
    leaders = [each for each in own if _labels(each).get(f"{SET}.x-k8s.io/worker-index", "0") == "0"]
    return GroupStatus(
        version=_version(found),
        wanted=found["spec"].get("replicas", 1),
        executors=tuple(_executor_status(each) for each in leaders),
    )


def _executor_status(pod: dict[str, Any]) -> ExecutorStatus:
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    ready = bool(containers) and all(each.get("ready") for each in containers)
    state: ExecutorState = "running" if ready else "starting"
    if pod["metadata"].get("deletionTimestamp"):
        state = "draining"
    elif status.get("phase") in ("Succeeded", "Failed"):
        state = "ended"
    return ExecutorStatus(
        name=pod["metadata"]["name"],
        state=state,
        where=pod["spec"].get("nodeName", ""),
        restarts=sum(each.get("restartCount", 0) for each in containers),
    )
