"""What an executor says when it dials in, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldAttempt:
    """An attempt of an earlier session that the executor still holds."""

    epoch: int
    number: int
    tokens: int
    ended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    spec: InstanceSpec
    held: tuple[HeldAttempt, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome:
    session_id: str
    epoch: int
    lease_s: float
    heartbeat_interval_s: float
    keep: tuple[int, ...]  # of the held attempts, by number
    role: InstanceRole


PROBATION_MAX_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSettings:
    lease_s: float = 5.0  # silence after which an instance is lost
    heartbeat_interval_s: float = 0.5
    reconnect_grace_s: float = 0.3  # broken stream to lost
    forget_after_s: float = 600.0  # how long a lost instance is listed
    failures_to_suspect: int = 3  # in a row, of the engine's making
    probation_s: float = 5.0  # first rest of an instance that failed in a row; doubles up to probation_max_s
    probation_max_s: float = PROBATION_MAX_S


class DuplicateInstance(Exception):
    """Another executor with this id is alive."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        super().__init__(
            f"instance id {instance_id!r} is in use by an executor that is alive; give each executor its own"
        )


class UnknownSession(Exception):
    def __init__(self, session_id: str) -> None:
        super().__init__(f"no session {session_id!r}: register again on the control stream")
