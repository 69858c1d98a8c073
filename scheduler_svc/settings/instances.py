"""When an instance counts as lost, stalled or failing."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sage_common.configuration import Section


class InstanceSection(Section):
    """When an instance counts as lost, stalled or failing."""

    lease_s: float = Field(
        default=5.0, gt=0, description="Seconds without a message after which an instance is treated as lost."
    )
    heartbeat_interval_s: float = Field(
        default=0.5, gt=0, description="Seconds between an executor's heartbeats; at most half of lease_s."
    )
    reconnect_grace_s: float = Field(
        default=0.3,
        ge=0,
        description="Seconds an executor has to reconnect after its stream breaks, before it is treated as lost.",
    )
    stall_limit_s: float = Field(
        default=10.0, gt=0, description="Seconds a busy instance may make no progress before it is treated as stalled."
    )
    known_wait_limit_s: float = Field(
        default=60.0, gt=0, description="The same limit in seconds while the engine reports why it waits."
    )
    forget_after_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds that a lost instance stays listed, and so does a model that no other instance serves.",
    )
    probation_s: float = Field(
        default=5.0,
        gt=0,
        description="Cool-down in seconds after consecutive failures of an instance; doubles up to a minute.",
    )

    adopt_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that an executor without a scheduler goes on with its requests, for the next one to adopt;"
        " at least lease_s.  Only with state_dir.",
    )

    @model_validator(mode="after")
    def _heartbeats_fit_into_the_lease(self) -> Self:
        if 2 * self.heartbeat_interval_s > self.lease_s:
            raise ValueError(
                f"heartbeat_interval_s ({self.heartbeat_interval_s:g}) is more than half of lease_s ({self.lease_s:g}):"
                " every instance would be suspect between two heartbeats"
            )
        return self
