"""An instance: one executor and its engine, as the scheduler knows it."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import DRAINS, GONE, STARTING, InstanceState, check_transition
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.pd.specialization import Specialization, specialization
from scheduler_svc.domain.prediction.predictor import Predictor
from scheduler_svc.domain.progress_watch import ProgressWatch
from scheduler_svc.domain.role_change import RoleChange

_TROUBLED = frozenset({InstanceState.SUSPECT, InstanceState.STALLED})


class Instance:
    """One executor and its engine.  The same object stands for an instance id when the engine starts again.

    Code outside the domain only reads it, and changes it through methods of ``Scheduler``.
    """

    __slots__ = (
        "_state",
        "_state_since",
        "account",
        "engine_start_id",
        "facts",
        "failed_starts",
        "has_place",
        "last_report_at",
        "load",
        "on_demand",
        "predictor",
        "progress",
        "recovers_to",
        "role",
        "role_change",
        "spec",
        "start_began_at",
        "state_reason",
        "wake_s",
        "watch",
    )

    def __init__(self, spec: InstanceSpec, now: float) -> None:
        self.spec = spec
        self.role = spec.role  # may differ from spec.role: an administrator changes it (``Scheduler.set_role``)
        self.role_change: RoleChange | None = None  # by which the role in force came, where it is automatic
        self.facts: EngineFacts | None = None  # of the running engine; None until it is READY
        self.engine_start_id = ""  # of the engine that ``facts`` describe
        self._state = InstanceState.DOWNLOADING
        self._state_since = now
        self.state_reason = "registered"
        self.recovers_to = InstanceState.READY  # the state before SUSPECT or STALLED: READY or DRAINING
        self.start_began_at = now  # when it registered to start its engine, seconds on the scheduler's clock
        self.failed_starts = 0  # starts that ended before READY, in a row
        self.wake_s: float | None = None  # that waking its engine took the last time; None: it never was woken
        # Whether it is started or woken when requests wait for its model, because it takes turns on a device.
        self.on_demand = spec.device_group is not None
        self.has_place = spec.device_group is None  # its engine starts, or did; before, its executor waits for a place
        self.progress: float | None = None  # of the engine's start, [0, 1]; None if unknown
        self.load: LoadReport | None = None  # the latest heartbeat
        self.last_report_at: float | None = None
        self.watch = ProgressWatch(now)
        self.predictor: Predictor | None = None  # from READY on
        self.account = Account(spec.instance_id)

    @property
    def instance_id(self) -> str:
        """The id its executor registered."""
        return self.spec.instance_id

    @property
    def state(self) -> InstanceState:
        """The state; ``transition`` changes it."""
        return self._state

    @property
    def state_since(self) -> float:
        """When the instance entered its state, in seconds on the scheduler's clock."""
        return self._state_since

    @property
    def specialization(self) -> Specialization:
        """How well the instance suits each leg of a split request now."""
        return specialization(self.role, kv_connector=self.facts.kv_connector if self.facts is not None else "")

    @property
    def live(self) -> bool:
        """Whether the instance serves, will serve, or may serve again."""
        return self._state not in GONE and self._state not in DRAINS

    def transition(self, state: InstanceState, reason: str, now: float) -> None:
        """Change the state: the only way to do so.  The same state again changes the reason only.

        Raises InvalidTransition where ``TRANSITIONS`` does not allow it; then nothing changes.
        """
        before = self._state
        check_transition(self.instance_id, before, state)
        self.state_reason = reason
        if state is before:
            return
        if state is InstanceState.READY:
            self.failed_starts = 0
        elif before in STARTING and state in GONE and self.has_place:
            self.failed_starts += 1
        if state in STARTING and before not in STARTING:
            self.start_began_at = now
        if state in GONE:
            self.on_demand = False
        elif before in GONE:
            self.on_demand = self.spec.device_group is not None
            self.has_place = not self.on_demand
        if state in _TROUBLED:
            self.recovers_to = before
        if state is InstanceState.READY:
            self.progress = None
        if before is InstanceState.SUSPECT:
            self.watch.pause(now - self._state_since)
        elif state is InstanceState.READY:
            self.watch.restart(now)
        self._state = state
        self._state_since = now

    def __repr__(self) -> str:
        return f"Instance({self.instance_id}, {self.spec.model}, {self._state.value})"
