"""A place's report of the fleet that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ExecutorState = Literal["starting", "running", "draining", "ended"]
"""State of an executor's process, as the place sees it; the scheduler knows whether its instance is READY."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorStatus:
    """One executor of a group."""

    name: str  # also its instance id
    state: ExecutorState
    where: str = ""  # node or devices, in words
    restarts: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupStatus:
    """One group of the fleet."""

    version: str  # ``group_version`` of what was applied
    wanted: int  # executors that it is to have
    executors: tuple[ExecutorStatus, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceStatus:
    """A fleet at one moment."""

    running: bool  # False: nothing was applied, or all of it was deleted
    services: str = ""  # ``services_version`` of what was applied
    scheduler: str = ""  # host:port, of several separated by commas, that clients dial
    groups: Mapping[str, GroupStatus] = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # in words: what keeps executors from running
