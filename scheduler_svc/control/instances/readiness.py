"""Whether an instance takes work, as far as its executor's session says: streams, cool-downs, drains, sleep."""

from __future__ import annotations

from sage_common.clock import Clock
from scheduler_svc.control.instances.cool_downs import CoolDowns
from scheduler_svc.control.instances.drains import Drains
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.sleep.sleeps import Sleeps
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

_SLEEP_UNKNOWN = "its executor has not said yet whether its engine sleeps"


class Readiness:
    """Takes instances out of work and back: SUSPECT while something speaks against them."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        table: SessionTable,
        settings: SessionSettings,
        decisions: OperatorDecisions,
        wakeup: Wakeup,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._wakeup = wakeup
        self.drains = Drains(scheduler, clock, decisions)
        self.sleeps = Sleeps(scheduler, clock, awake=self._awake)
        self.cool_downs = CoolDowns(clock, settings, self._cooled_down)

    def hold_back(self, session: Session) -> None:
        """Make the instance SUSPECT, so that it gets no work, while something speaks against it."""
        if session.instance.state in (InstanceState.READY, InstanceState.DRAINING):
            reason = self._against(session)
            if reason is not None:
                self.move(session.instance, InstanceState.SUSPECT, reason)

    def recover(self, session: Session, reason: str) -> None:
        """Take the instance out of SUSPECT if nothing speaks against it any more."""
        if session.grace is not None and session.up:
            session.grace.cancel()
            session.grace = None
        instance = session.instance
        if instance.state is not InstanceState.SUSPECT or instance.facts is None or not session.up:
            return
        against = self._against(session)
        if against is not None:
            self.move(instance, InstanceState.SUSPECT, against)  # this is the reason from now on
            return
        self._scheduler.recover(session.instance_id, reason, self._clock.now())
        self.finish_drain(session.instance_id)
        self._wakeup.notify()

    def drained(self, instance_id: str) -> bool:
        """Return whether an instance is to take nothing, because an operator drained it or its executor leaves."""
        session = self._table.find(instance_id)
        return session is not None and self.drains.reason(session) is not None

    def finish_drain(self, instance_id: str) -> None:
        """Finish the instance's drain if nothing is in flight there, and order the sleep that was to follow."""
        self.drains.finish_if_empty(instance_id)
        if (instance := self._scheduler.find_instance(instance_id)) is not None:
            self.sleeps.follow(instance)

    def forget(self, instance_id: str) -> None:
        """Forget an instance that is gone, with its cool-down and its cordon."""
        self._scheduler.forget(instance_id)
        self.cool_downs.forget(instance_id)
        self.drains.forget(instance_id)

    def move(self, instance: Instance, state: InstanceState, reason: str) -> None:
        """Move an instance into a state now.  Raises InvalidTransition."""
        self._scheduler.transition(instance.instance_id, state, reason, self._clock.now())

    def _against(self, session: Session) -> str | None:
        """Return what speaks against work for the instance; None if nothing does."""
        if not session.up:
            return "its streams are not both up yet"
        cool_down = self.cool_downs.reason(session.instance_id)
        if cool_down is not None:
            return cool_down
        return _SLEEP_UNKNOWN if self.sleeps.unknown(session.instance) else None

    def _awake(self, instance_id: str) -> None:
        session = self._table.find(instance_id)
        if session is not None:
            self.hold_back(session)
            self.recover(session, "its engine is awake")
            self._wakeup.notify()

    def _cooled_down(self, instance_id: str) -> None:
        session = self._table.find(instance_id)
        if session is not None:
            self.recover(session, "its cool-down is over; it must prove itself")
