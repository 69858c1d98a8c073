"""One executor's session: a pair of streams and the lease that runs on them."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from sage_common.clock import Timer
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.instances.lease import Lease
from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.domain.instance import Instance


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """Implements Channel.  Times are seconds on the control clock."""

    session_id: str
    instance: Instance
    engine_start_id: str  # of the engine that registered
    resume_secret: bytes = field(repr=False)  # the executor's later sessions have the same
    link: ExecutorLink
    lease: Lease
    acknowledged_at: float = float("-inf")  # when a heartbeat was acknowledged last
    control_up: bool = True
    outputs_up: bool = False
    was_up: bool = False  # both streams were up before
    leaving: bool = False  # the executor asked to be drained
    assigns: int = 0  # Assigns sent so far
    cache_reports: int = 0  # number of the latest report of the engine's prefix cache
    resend: tuple[int, ...] = ()  # attempts whose output is requested again once the output stream is up
    resend_ended: tuple[tuple[int, int], ...] = ()  # attempts, by epoch and number, whose kept ends are
    grace: Timer | None = None  # runs while a stream is broken

    @property
    def instance_id(self) -> str:
        """The id of the session's instance."""
        return self.instance.spec.instance_id

    def is_of(self, registration: Registration) -> bool:
        """Return whether the executor that registers proves to be this session's, so that it may go on from it."""
        same_engine = registration.spec.engine_start_id == self.engine_start_id
        return same_engine and hmac.compare_digest(registration.resume_secret, self.resume_secret)

    @property
    def up(self) -> bool:
        """Whether both streams are up."""
        return self.control_up and self.outputs_up

    def next_assign(self) -> int:
        """Count one more Assign and return its number; the first is 1."""
        self.assigns += 1
        return self.assigns
