"""The number of instances that each model is to have, and its decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sage.controlplane.v1 import admin_pb2
from sage_client._decode import role, seconds
from sage_client._enums import InstanceRole
from sage_client._plain import Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class DesiredInstances(Plain):
    """Number of instances of one model and role that there are to be, and why."""

    model: str
    role: InstanceRole  # GENERAL stands for HYBRID, too
    desired: int
    ready: int  # READY or SUSPECT
    starting: int
    min: int  # as configured; 0: down to none while nobody asks
    max: int  # as configured
    reason: str  # in words
    age_s: float  # since the desired number changed
    warm_up_s: float  # from registration to READY, measured; a setting until then
    remove_first: tuple[str, ...]  # instance ids; the first is the first to drain when there are too many
    load: float  # what arrives, in instances with every slot taken
    forecast: float  # the same when an instance would be READY that is started now
    price_per_hour: float  # of the desired number; 0 while no instance is known


@dataclass(frozen=True, kw_only=True, slots=True)
class DesiredFleet(Plain):
    """The desired instances of all models."""

    enabled: bool  # False: the scheduler does not work them out
    desired: tuple[DesiredInstances, ...]  # sorted by model and role

    def __iter__(self) -> Iterator[DesiredInstances]:
        """Iterate over the desired instances of each model and role."""
        return iter(self.desired)


def desired_fleet(message: admin_pb2.ListDesiredInstancesResponse) -> DesiredFleet:
    """Decode the desired instances."""
    return DesiredFleet(enabled=message.enabled, desired=tuple(map(_desired, message.desired)))


def _desired(message: admin_pb2.DesiredInstances) -> DesiredInstances:
    return DesiredInstances(
        model=message.model,
        role=role(message.role),
        desired=message.desired,
        ready=message.ready,
        starting=message.starting,
        min=message.min,
        max=message.max,
        reason=message.reason,
        age_s=seconds(message.age),
        warm_up_s=seconds(message.warm_up),
        remove_first=tuple(message.remove_first),
        load=message.load,
        forecast=message.forecast,
        price_per_hour=message.price_per_hour,
    )
