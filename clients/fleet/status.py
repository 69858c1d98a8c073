"""What a supervisor says of its fleet, while it starts and later."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self


class FleetPhase(Enum):
    STARTING = "starting"
    READY = "ready"  # every instance was READY once; what dies is started again
    FAILED = "failed"  # it could not start; ``reason`` says why
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessStatus:
    """One process that is kept running."""

    name: str
    state: str  # "running", "waiting" to be started again, "ended"
    pid: int | None  # of its latest start, which leads a session
    restarts: int
    last_exit: int | None  # exit status; negative: the signal
    where: str  # the devices it runs on, in words
    warning: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceProgress:
    """How far an instance's start has come."""

    instance_id: str
    state: str
    progress: float | None  # [0, 1] where known
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetStatus:
    """A snapshot."""

    phase: FleetPhase
    reason: str  # with FAILED
    culprit: str  # name of the process at fault, with FAILED; else empty
    address: str
    supervisor_pid: int
    processes: tuple[ProcessStatus, ...]
    instances: tuple[InstanceProgress, ...]  # as last seen while starting

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"phase": self.phase.value}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values: dict[str, Any] = json.loads(text)
        values["phase"] = FleetPhase(values["phase"])
        values["processes"] = tuple(ProcessStatus(**each) for each in values["processes"])
        values["instances"] = tuple(InstanceProgress(**each) for each in values["instances"])
        return cls(**values)
