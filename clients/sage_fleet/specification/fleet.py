"""A fleet: groups of executors behind a scheduler, and an HTTP gateway if it has one."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sage_common.configuration import Section
from sage_fleet.specification.group import SPLIT_ROLES, GroupSection
from sage_fleet.specification.names import Name
from sage_fleet.specification.places import KubernetesSection, PlaceKind, RaySection
from sage_fleet.specification.services import GatewaySection, SchedulerSection


class Fleet(Section):
    """The specification of a fleet, as ``fleet.yaml`` holds it."""

    name: Name = Field(default="sage", description="Name of the fleet.")
    place: PlaceKind = Field(default="local", description="Where it runs.")
    scheduler: SchedulerSection = Field(default=SchedulerSection(), description="The scheduler.")
    gateway: GatewaySection | None = Field(default=None, description="The HTTP gateway.  Default: none.")
    groups: dict[Name, GroupSection] = Field(min_length=1, max_length=200, description="Executors, by group.")
    start_timeout_s: float = Field(
        default=900.0, gt=0, le=86_400, description="Most seconds until the executors of a change are READY."
    )
    drain_timeout_s: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="Seconds that requests of an executor that is stopped get to finish; then they go on with others.",
    )
    ray: RaySection = Field(default=RaySection(), description="The Ray cluster, where the place is ray.")
    kubernetes: KubernetesSection = Field(
        default=KubernetesSection(), description="The cluster, where the place is kubernetes."
    )

    @model_validator(mode="after")
    def _share_as_many_gpus(self) -> Self:
        gpus: dict[str, int] = {}
        for name, group in self.groups.items():
            if group.device_group and gpus.setdefault(group.device_group, group.gpus) != group.gpus:
                other = gpus[group.device_group]
                raise ValueError(f"groups.{name}.gpus is {group.gpus}: others of {group.device_group} have {other}")
        return self

    @property
    def splits(self) -> bool:
        """Whether requests may be split into prefill and decode: a group has a role that takes part."""
        return any(group.role in SPLIT_ROLES for group in self.groups.values())
