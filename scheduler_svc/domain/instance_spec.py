"""The description that an executor registers, before its engine is up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class InstanceRole(Enum):
    """Which requests, or legs of split requests, an instance is meant for."""

    GENERAL = "general"  # whole requests
    PREFILLING = "prefilling"  # prefill legs
    DECODING = "decoding"  # decode legs
    HYBRID = "hybrid"  # whole requests and both legs
    EMBEDDING = "embedding"  # no generation

    @property
    def embeds(self) -> bool:
        """Whether the engine embeds instead of generating; this is decided when it starts."""
        return self is InstanceRole.EMBEDDING


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where an executor runs; empty where unknown."""

    host: str = ""
    rack: str = ""
    zone: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceGroup:
    """The engines of one host that take turns on a device."""

    name: str
    places: int = 1  # engines whose memory the device holds at the same time


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceSpec:
    """An executor's description of itself and of the engine that it starts."""

    instance_id: str
    model: str
    role: InstanceRole = InstanceRole.GENERAL
    engine_start_id: str = ""  # new with every engine start
    price_per_hour: float = 0.0  # in the operator's currency
    location: Location = Location()
    labels: Mapping[str, str] = field(default_factory=dict)
    software_version: str = ""
    address: str = ""  # host:port of its own services
    device_group: DeviceGroup | None = None  # None: the engine has its device for itself
