"""Messages that begin a session: Register from the executor, Welcome from the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from executor_svc.runtime.messages.attempt_id import AttemptId


class Role(Enum):
    """The kind of work an instance is meant for."""

    GENERAL = "general"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    HYBRID = "hybrid"
    EMBEDDING = "embedding"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceGroup:
    """The engines of this host that take turns on a device."""

    name: str
    places: int  # engines whose memory the device holds at the same time


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """The identity of the instance; the same in every registration of one process."""

    instance_id: str
    engine_start_id: str  # random, new in every process
    role: Role
    model: str  # the name clients ask for
    host: str = ""
    rack: str = ""
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    price_per_hour: float = 0.0  # for the whole instance, in one currency per fleet
    software_version: str = ""
    address: str = ""  # host:port where the executor's own services listen
    device_group: DeviceGroup | None = None  # None: the engine has its device for itself


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldAttempt:
    """An attempt of an earlier session that this executor still holds."""

    attempt: AttemptId
    tokens: int  # output positions filled so far, those of earlier attempts included
    ended: bool
    adoption_proof: bytes = field(default=b"", repr=False)  # as its Assign had it


@dataclass(frozen=True, kw_only=True, slots=True)
class AutomaticRole:
    """A role that a scheduler gave this instance by itself.  The executor keeps it for the next scheduler, no more."""

    role: Role
    previous: Role  # before the change
    cause: str
    reason: str  # in words
    age_s: float  # seconds since the change


@dataclass(frozen=True, kw_only=True, slots=True)
class Register:
    """Asks a scheduler to take this executor's engine on as an instance; the first message of a session."""

    identity: Identity
    resume_secret: bytes = field(default=b"", repr=False)  # of the latest session; empty: there was none
    held: tuple[HeldAttempt, ...] = ()
    automatic_role: AutomaticRole | None = None  # the latest that came; None: there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome:
    """The scheduler's answer to Register: the terms of the session."""

    session_id: str
    epoch: int
    lease_s: float  # seconds without a heartbeat after which the scheduler counts the instance as lost
    heartbeat_interval_s: float
    keep: frozenset[AttemptId] = frozenset()  # held attempts that go on; all others are aborted
    role: Role = Role.GENERAL  # the role in force, which may differ from the registration's
    resume_secret: bytes = field(default=b"", repr=False)  # proves in the next registration that this is the executor
    adopt_s: float | None = None  # how long attempts go on without a session; None: this scheduler adopts none
    leader_lease_s: float | None = None  # a scheduler silent for this long leads no more; None: there is one only

    @property
    def kept_s(self) -> float:
        """How long attempts go on without a session, in seconds."""
        return self.lease_s if self.adopt_s is None else max(self.lease_s, self.adopt_s)

    @property
    def silence_s(self) -> float:
        """How long the scheduler may be silent before another one is looked for, in seconds."""
        return self.lease_s if self.leader_lease_s is None else min(self.lease_s, self.leader_lease_s)
