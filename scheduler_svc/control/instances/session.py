"""One executor's presence: a pair of streams and the lease that runs on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.timing.clock import Timer
from scheduler_svc.domain.instance import Instance


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    session_id: str
    instance: Instance
    engine_start_id: str
    link: ExecutorLink
    registered_at: float
    last_heard_at: float
    lag_then_s: float  # event-loop lag accumulated by then: a lease runs later by what came since
    control_up: bool = True
    outputs_up: bool = False
    leaving: bool = False  # the executor asked to be drained
    assigns: int = 0
    resend: tuple[int, ...] = ()  # attempts whose output is wanted again once the output stream is up
    grace: Timer | None = None

    @property
    def instance_id(self) -> str:
        return self.instance.spec.instance_id

    @property
    def up(self) -> bool:
        return self.control_up and self.outputs_up

    def next_assign(self) -> int:
        self.assigns += 1
        return self.assigns


@dataclass(slots=True, kw_only=True)
class Probation:
    """An instance whose engine fails request after request rests, longer each time, until one succeeds."""

    failures: int = 0  # in a row
    rests: int = 0  # in a row
    why: str = ""  # of the latest rest
    timer: Timer | None = field(default=None)
