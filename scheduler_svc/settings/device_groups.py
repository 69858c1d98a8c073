"""How engines that share a device take turns."""

from __future__ import annotations

from pydantic import Field

from sage_common.configuration import Section


class DeviceGroupsSection(Section):
    """How the engines that share a device take turns on it; their executors name it (device_group)."""

    min_awake_s: float = Field(
        default=5.0, ge=0, le=3_600, description="Seconds that an engine stays awake, whoever else is wanted."
    )
    turn_factor: float = Field(
        default=4.0,
        ge=0,
        le=1_000,
        description="A turn of a busy engine lasts this many times what one engine's falling asleep and the other's "
        "waking up take; with 4, a fifth of the time goes into them.",
    )
    drain_limit_s: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="Seconds that running requests may take to end after a turn.  Those left then wait, and go on from "
        "their tokens in the next one.",
    )
