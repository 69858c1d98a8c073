"""Executors' sessions: what happens when their streams come up, break or end, and when an executor is gone."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.instances.fleet_observer import FleetObserver
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class Sessions:
    """Follows the streams of sessions, and frees what an executor had that is gone."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        table: SessionTable,
        readiness: Readiness,
        attempts: AttemptTable,
        handoffs: Handoffs,
        links: ExecutorLinks,
        adoption: Adoption,
        ends: KeptEnds,
        adapters: Adapters,
        loop_lag: LoopLag,
        wakeup: Wakeup,
        settings: SessionSettings,
        observer: FleetObserver,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._attempts = attempts
        self._handoffs = handoffs
        self._links = links
        self._adoption = adoption
        self._ends = ends
        self._adapters = adapters
        self._loop_lag = loop_lag
        self._wakeup = wakeup
        self._settings = settings
        self._observer = observer

    def by_id(self, session_id: str) -> Session:
        """Return the session of this id.  Raises UnknownSession."""
        return self._table.by_id(session_id)

    def current(self, session: Session) -> bool:
        """Return whether this is still the instance's session; late messages of a replaced one are ignored."""
        return self._table.current(session)

    def renew_lease(self, session: Session) -> None:
        """Renew the session's lease, because a message of its executor arrived."""
        session.last_heard_at = self._clock.now()
        session.lag_then_s = self._loop_lag.lost_s

    # --- streams ----------------------------------------------------------------------------------

    def outputs_opened(self, session_id: str) -> Session:
        """Note that the output stream is up, which completes the session.  Raises UnknownSession."""
        session = self.by_id(session_id)
        session.outputs_up = True
        for number in session.resend:
            attempt = self._attempts.find(number)
            if attempt is not None:
                session.link.resend(number, attempt.listener.position)
        kept = self._ends.attempts(session.instance_id)
        for name in session.resend_ended:  # or the executor takes it for one that nobody wants any more
            if name in kept:
                session.link.resend_named(*name, len(kept[name].output))
        session.resend = session.resend_ended = ()
        self._readiness.recover(session, "streams are up again" if session.was_up else "its engine is ready")
        session.was_up = session.was_up or session.up
        return session

    def control_broken(self, session: Session, reason: str) -> None:
        """Note that the control stream broke; the session is lost after ``reconnect_grace_s``."""
        session.control_up = False
        self._broken(session, f"control stream broke: {reason}")

    def outputs_broken(self, session: Session, reason: str) -> None:
        """Note that the output stream broke; the session is lost after ``reconnect_grace_s``."""
        session.outputs_up = False
        # Output that was lost with the stream is requested again when the stream is back.
        session.resend = tuple(a.number for a in self._attempts.on_instance(session.instance_id) if not a.fenced)
        self._broken(session, f"output stream broke: {reason}")

    def _broken(self, session: Session, reason: str) -> None:
        if not self.current(session):
            return
        log.warning("instance %s: %s", session.instance_id, reason)
        if session.instance.state in (InstanceState.READY, InstanceState.DRAINING):
            self._readiness.move(session.instance, InstanceState.SUSPECT, reason)
        if session.grace is None:
            session.grace = self._clock.call_at(
                self._clock.now() + self._settings.reconnect_grace_s,
                lambda: self._grace_over(session, reason),
            )

    def _grace_over(self, session: Session, reason: str) -> None:
        session.grace = None
        if self.current(session) and not session.up:
            self.lose(session, reason)

    # --- ends -------------------------------------------------------------------------------------

    def goodbye(self, session: Session, reason: str) -> None:
        """End the session at once: its executor leaves for good."""
        if self.current(session):
            self.lose(session, f"said goodbye: {reason}" if reason else "said goodbye")

    def end_all(self, reason: str) -> None:
        """End every session; messages that were queued before are still sent, and none after them."""
        for session in self._table:
            session.link.close(reason)

    def lose(self, session: Session, reason: str) -> None:
        """End a session; the attempts' requests go on elsewhere."""
        instance = session.instance
        self.close(session, reason)
        self._adapters.closed(session.instance_id)
        self._readiness.sleeps.closed(session.instance_id)
        log.warning("instance %s is gone: %s", instance.instance_id, reason)
        if instance.state is not InstanceState.FAILED:
            self._readiness.move(instance, InstanceState.LOST, reason)
        self._free(instance, instance.state_reason)

    def engine_failed(self, instance: Instance, reason: str) -> None:
        """Make the instance FAILED; the attempts' requests go on elsewhere, and the session stays."""
        self._readiness.move(instance, InstanceState.FAILED, reason)
        self._free(instance, reason, engine_died=True)

    def close(self, session: Session, reason: str) -> None:
        """End a session and nothing else: a newer one of the same executor goes on with what it had."""
        if session.grace is not None:
            session.grace.cancel()
            session.grace = None
        if self._table.remove(session):
            self._links.close(session.instance_id)
        session.link.close(reason)

    def _free(self, instance: Instance, reason: str, *, engine_died: bool = False) -> None:
        """End the attempts and free the reservations of an engine that is gone."""
        self._adoption.lost(instance.instance_id)
        self._ends.release_all(instance.instance_id)
        self._attempts.instance_lost(instance.instance_id, reason, engine_died=engine_died)
        self._handoffs.instance_lost(instance.instance_id, reason)
        self._scheduler.lose(instance.instance_id, reason, self._clock.now())
        self._observer.engine_gone(instance, self._clock.now())
        self._wakeup.notify()
