"""The orders that instances get: drain, resume, sleep, wake."""

from __future__ import annotations

from scheduler_svc.control.instances.instance_work import InstanceWork
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.sleep.instance_sleep import InstanceSleep
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.scheduler import Scheduler


class InstanceOrders:
    """Gives orders, of operators, of executors that leave, and of device groups.  Implements SleepOrders."""

    def __init__(
        self, scheduler: Scheduler, table: SessionTable, readiness: Readiness, work: InstanceWork, wakeup: Wakeup
    ) -> None:
        self._scheduler = scheduler
        self._table = table
        self._readiness = readiness
        self._work = work
        self._wakeup = wakeup

    def drain(self, instance_id: str, reason: str, *, by_operator: bool) -> Instance:
        """Give an instance no new work; it is DRAINED once nothing is in flight.

        An operator's drain outlives the executor; the executor's own ends with its engine.
        Raises InstanceNotFound, InvalidTransition.
        """
        instance = self._scheduler.instance(instance_id)
        self._readiness.drains.start(instance, self._table.find(instance_id), reason, by_operator=by_operator)
        self._readiness.sleeps.follow(instance)
        self._work.release_ends(instance_id)
        return instance

    def resume(self, instance_id: str) -> Instance:
        """Lift a drain, also of an instance without a session.  Raises InstanceNotFound, InvalidTransition."""
        instance = self._scheduler.instance(instance_id)
        session = self._table.find(instance_id)
        takes_work_again = self._readiness.drains.lift(instance, session)
        self._readiness.sleeps.cancel(instance)
        if session is not None:
            if takes_work_again:
                self._readiness.hold_back(session)
            self._wakeup.notify()
        return instance

    def sleep(self, instance_id: str, reason: str) -> Instance:
        """Have an instance drain and then sleep; it takes nothing until it is woken.

        Raises InstanceNotFound, InvalidTransition, InvalidRequest (its engine cannot sleep).
        """
        instance = self._scheduler.instance(instance_id)
        self._readiness.sleeps.sleep(instance, reason)
        self._readiness.finish_drain(instance_id)
        return instance

    def wake(self, instance_id: str) -> Instance:
        """Have an instance be awake.  Raises as ``sleep`` does."""
        instance = self._scheduler.instance(instance_id)
        self._readiness.sleeps.wake(instance, drained=self.drained(instance_id))
        return instance

    def give_back(self, instance_id: str, reason: str) -> int:
        """Have the requests that run on an instance wait again, with the tokens they have; return how many did."""
        return self._work.give_back(instance_id, reason)

    def sleep_of(self, instance_id: str) -> InstanceSleep | None:
        """Return what an instance was told about its sleep, and what it says; None if it has no session."""
        return self._readiness.sleeps.find(instance_id)

    def drained(self, instance_id: str) -> bool:
        """Return whether an instance is to take nothing, because an operator drained it or its executor leaves."""
        return self._readiness.drained(instance_id)

    def may_be_woken(self, instance_id: str) -> bool:
        """Return whether requests that wait may have an instance woken: it has a session, and is not drained."""
        return instance_id in self._table and not self.drained(instance_id)
