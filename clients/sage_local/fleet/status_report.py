"""What ``sagectl status`` reports: the processes of the fleet and their instances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sage_client as sage
from sage_local.fleet.command_lines import GATEWAY
from sage_local.fleet.progress import start_words
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetPhase, FleetStatus

RUNNING, NOT_RUNNING, NOT_READY = 0, 3, 1
SERVICES = frozenset({"postgres", "scheduler", "standby", GATEWAY})  # processes that are no executors


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetReport:
    """The fleet's status, for people and for programs."""

    exit_status: int  # 0 if every process runs and every instance is READY, 1 if not, 3 if no fleet is running
    lines: tuple[str, ...]  # in words
    document: dict[str, Any]  # as plain values
    processes: tuple[str, ...]  # their names


def report_status(state: StateDir) -> FleetReport:
    """Return the status of the fleet in a state directory."""
    status = state.read_status()
    if status is None or not state.is_held():
        document = {"running": False, "directory": str(state.path)}
        return FleetReport(exit_status=NOT_RUNNING, lines=(state.not_running,), document=document, processes=())
    instances = _instances(status.address)
    return FleetReport(
        exit_status=RUNNING if _is_ready(status, instances) else NOT_READY,
        lines=tuple(_lines(status, instances)),
        document={"running": True, **json.loads(status.to_json()), "instances": _plain(instances)},
        processes=tuple(each.name for each in status.processes),
    )


def _instances(address: str) -> list[sage.Instance]:
    try:
        with sage.Client(address, timeout=5.0) as client:
            return list(client.list_instances().instances)
    except sage.SageError:
        return []


def _is_ready(status: FleetStatus, instances: list[sage.Instance]) -> bool:
    ready = {each.instance_id for each in instances if each.state is sage.InstanceState.READY}
    up = all(each.state == "running" for each in status.processes)
    wanted = {each.name for each in status.processes} - SERVICES
    return status.phase is FleetPhase.READY and up and wanted <= ready


def _plain(instances: list[sage.Instance]) -> list[dict[str, object]]:
    return [
        {
            "instance_id": each.instance_id,
            "state": each.state.value,
            "progress": each.progress,
            "message": each.state_reason,
        }
        for each in instances
    ]


def _lines(status: FleetStatus, instances: list[sage.Instance]) -> Iterator[str]:
    yield f"{status.phase.value}: scheduler on {status.address}, supervisor {status.supervisor_pid}"
    states = {each.instance_id: start_words(each.state.value, each.progress, each.state_reason) for each in instances}
    for process in status.processes:
        known = states.get(process.name, "")
        exit_ = f", last exit {process.last_exit}" if process.last_exit is not None else ""
        where = f"  on {process.where}" if process.where else ""
        line = f"{process.name:<14} {process.state:<8} pid {process.pid}{where}  restarts {process.restarts}{exit_}"
        yield f"{line}  {known}".rstrip()
