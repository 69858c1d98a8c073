"""The settings with which an actor starts its executor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sage_fleet.executor_settings import PREFIX, executor_settings
from sage_fleet.processes import executor_connection
from sage_fleet.ray_place.actor_name import ActorName
from sage_fleet.ray_place.bundles import Reservation
from sage_fleet.specification.fleet import Fleet


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorStart:
    """The settings of one executor, as ``executor_svc`` reads them on whatever node it runs."""

    instance_id: str
    actor: str  # name of its actor and placement group
    environment: Mapping[str, str]
    drain_timeout_s: float  # seconds that running requests get to finish


def executor_start(fleet: Fleet, name: ActorName, reserved: Reservation) -> ExecutorStart:
    """Return how the executor of this name is started."""
    environment = executor_settings(fleet, name.group) | executor_connection(fleet)
    environment[f"{PREFIX}INSTANCE_ID"] = name.instance_id
    if reserved.spans_nodes:
        environment[f"{PREFIX}ENGINE__VLLM__RAY_PLACEMENT_GROUP"] = str(name)
    return ExecutorStart(
        instance_id=name.instance_id, actor=str(name), environment=environment, drain_timeout_s=fleet.drain_timeout_s
    )
