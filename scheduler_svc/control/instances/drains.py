"""Drains: an instance gets no new work, and is DRAINED once nothing is in flight there."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.domain.errors import InvalidTransition
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import DRAINS, GONE, STARTING, InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

_DRAINABLE = (InstanceState.READY, InstanceState.SUSPECT, InstanceState.STALLED)


class Drains:
    """Starts, finishes and lifts drains.

    An operator's drain is a cordon: it outlives the executor, and with a journal the scheduler too; without one it is
    forgotten with the instance.  A drain that the executor asks for lasts while that engine runs; the executor repeats
    its wish in every session.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock, decisions: OperatorDecisions) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._decisions = decisions

    def reason(self, session: Session) -> str | None:
        """Return why a session's instance is to be drained; None where it is not."""
        if session.leaving:
            return "asked to be drained"
        if not self.cordoned(session.instance_id):
            return None
        return self._decisions.instance(session.instance_id).drain_reason or "drained by an operator"

    def cordoned(self, instance_id: str) -> bool:
        """Return whether an operator drained the instance and did not resume it."""
        return self._decisions.drained(instance_id)

    def start(self, instance: Instance, session: Session | None, reason: str, *, by_operator: bool) -> None:
        """Drain an instance.  ``session`` is None while its executor is not connected.

        Raises InvalidTransition if an operator drains an instance that is gone.  If its executor asks for that, nothing
        happens.
        """
        if instance.state in GONE:
            if not by_operator:
                return
            subject = f"instance {instance.instance_id}"
            raise InvalidTransition(subject, instance.state.value, InstanceState.DRAINING.value)
        if by_operator:
            self._decisions.drain(instance.instance_id, reason)
        elif session is not None:
            session.leaving = True
        if instance.state in _DRAINABLE:
            self._move(instance, InstanceState.DRAINING, reason or "drained by an operator")
        if session is not None and by_operator:
            session.link.drain(resume=False)
        self.finish_if_empty(instance.instance_id)

    def lift(self, instance: Instance, session: Session | None) -> bool:
        """Lift a drain, also of an instance without a session; return whether the instance takes work again.

        Raises InvalidTransition if the instance is not cordoned, and neither draining, drained, starting nor READY.
        """
        instance_id, drained = instance.instance_id, instance.state in DRAINS
        if not drained and instance.state is not InstanceState.READY and instance.state not in STARTING:
            if not self.cordoned(instance_id):
                raise InvalidTransition(f"instance {instance_id}", instance.state.value, InstanceState.READY.value)
            self._scheduler.recover_without_drain(instance_id)
        self._decisions.resume(instance_id)
        if session is None:
            return False
        session.leaving = False
        session.link.drain(resume=True)
        if drained:
            self._move(instance, InstanceState.READY, "resumed by an operator")
        return drained

    def finish_if_empty(self, instance_id: str) -> None:
        """Let a DRAINING instance become DRAINED if nothing is in flight there.

        Everything that is promised there holds a reservation: attempts, decode legs whose prefill still runs
        elsewhere, and KV left for others to fetch.  Warm-ups hold none and do not delay a drain.
        """
        instance = self._scheduler.find_instance(instance_id)
        if instance is not None and instance.state is InstanceState.DRAINING and not instance.account.reservations:
            self._move(instance, InstanceState.DRAINED, instance.state_reason)

    def forget(self, instance_id: str) -> None:
        """Drop the cordon of an instance that is forgotten, unless the journal keeps it."""
        if self._decisions.forget(instance_id):
            log.warning("instance %s forgotten; its operator drain is lifted", instance_id)

    def _move(self, instance: Instance, state: InstanceState, reason: str) -> None:
        self._scheduler.transition(instance.instance_id, state, reason, self._clock.now())
