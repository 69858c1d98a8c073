"""The status that a supervisor reports of its fleet."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from sage_local.fleet.sessions import SessionMark


class FleetPhase(Enum):
    """Phase of a fleet's life."""

    STARTING = "starting"
    READY = "ready"  # every instance was READY once; processes that die are restarted
    FAILED = "failed"  # the fleet could not start; ``reason`` says why
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessStatus:
    """The status of one process of the fleet."""

    name: str
    state: str  # "running", "stopping" (it drains while the others go on) or "ended"
    pid: int | None  # process id of the latest start; also the id of its session
    restarts: int
    last_exit: int | None  # exit status; negative: the signal
    where: str  # an executor's devices, in words; of the others the address that they listen on
    warning: str  # in words; empty if there is no warning
    started: int | None = None  # when ``pid`` started, in clock ticks since the machine booted


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceProgress:
    """The progress of an instance's start."""

    instance_id: str
    state: str
    progress: float | None  # in [0, 1]; None: not known
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetStatus:
    """A fleet's status at one moment."""

    phase: FleetPhase
    reason: str  # why the fleet is FAILED; else empty
    culprit: str  # name of the process at fault where the fleet is FAILED; else empty
    address: str
    supervisor_pid: int
    processes: tuple[ProcessStatus, ...]
    instances: tuple[InstanceProgress, ...]  # as last seen during the start
    pair_usable: bool = False  # whether a prefill/decode pair could hand over when the fleet became READY
    stop_timeout_s: float = 0.0  # seconds that the slowest process may take to stop; 0: not known
    boot_id: str = ""  # of the machine, when the processes were started

    def sessions(self) -> tuple[SessionMark, ...]:
        """Return the marks of the processes' sessions."""
        return tuple(
            SessionMark(session=each.pid, boot_id=self.boot_id, started=each.started)
            for each in self.processes
            if each.pid is not None and each.started is not None
        )

    def to_json(self) -> str:
        """Return the status as JSON, for ``from_json``."""
        return json.dumps(dataclasses.asdict(self) | {"phase": self.phase.value}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a status that ``to_json`` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["phase"] = FleetPhase(values["phase"])
        values["processes"] = tuple(ProcessStatus(**each) for each in values["processes"])
        values["instances"] = tuple(InstanceProgress(**each) for each in values["instances"])
        return cls(**values)
