"""An executor's registration, the scheduler's answer, and the reasons to refuse it."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.roles.kept_role import KeptRole
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """An executor's first message."""

    spec: InstanceSpec
    resume_secret: bytes = field(default=b"", repr=False)  # of the session that it goes on from; empty: of none
    held: tuple[HeldAttempt, ...] = ()
    run_time_adapters: bool = False  # the executor takes adapters while its engine runs
    keeps_role: bool = False  # the executor keeps a role that came by itself
    kept_role: KeptRole | None = None  # under an earlier scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome:
    """The scheduler's answer to a registration."""

    session_id: str
    epoch: int
    lease_s: float  # silence after which the instance is lost
    heartbeat_interval_s: float
    keep: tuple[int, ...]  # the held attempts that go on, by number
    keep_ended: tuple[tuple[int, int], ...]  # those whose ends it keeps for readers, by epoch and number
    role: InstanceRole  # as an operator may have changed it
    resume_secret: bytes = field(repr=False)  # proves, in later registrations, that this executor is the same
    adopt_s: float | None = None  # how long attempts go on without a session; None: no longer than the lease


class DuplicateInstance(Exception):
    """Another executor with this id is alive, so this one is refused."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        super().__init__(
            f"instance id {instance_id!r} is in use by an executor that is alive; give each executor its own"
        )


class UnknownSession(Exception):
    """A stream names a session that is over or never was."""

    def __init__(self) -> None:
        # Not the id: whoever reads the log could open streams with it.
        super().__init__("no session of this id: register again on the control stream")
