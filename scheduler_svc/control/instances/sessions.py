"""Executors' sessions: what happens when they open, and when their streams come up, break or end."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adapters.instance_adapters import InstanceAdapters
from scheduler_svc.control.instances.engine_losses import EngineLosses
from scheduler_svc.control.instances.instance_work import InstanceWork
from scheduler_svc.control.instances.lease import Leases
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.domain.instance_state import InstanceState

log = logging.getLogger(__name__)


class Sessions:
    """Follows sessions from their first message to their end."""

    def __init__(
        self,
        clock: Clock,
        table: SessionTable,
        readiness: Readiness,
        leases: Leases,
        work: InstanceWork,
        losses: EngineLosses,
        adapters: Adapters,
        settings: SessionSettings,
    ) -> None:
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._leases = leases
        self._work = work
        self._losses = losses
        self._adapters = adapters
        self._settings = settings

    def by_id(self, session_id: str) -> Session:
        """Return the session of this id.  Raises UnknownSession."""
        return self._table.by_id(session_id)

    def current(self, session: Session) -> bool:
        """Return whether this is still the instance's session; late messages of a replaced one are ignored."""
        return self._table.current(session)

    def renew_lease(self, session: Session) -> None:
        """Renew the session's lease, because a message of its executor arrived."""
        self._leases.renew(session.lease)

    def open(self, session: Session, *, run_time_adapters: bool) -> None:
        """Begin a session.  ``run_time_adapters``: its executor takes adapters while its engine runs."""
        self._table.add(session)
        self._work.goes_on_in(session)
        self._readiness.hold_back(session)
        if self._readiness.drains.cordoned(session.instance_id):
            session.link.drain(resume=False)  # an executor forgets a drain with its session
        self._readiness.sleeps.opened(session.instance, session.link)
        self._adapters.opened(_adapters_of(session, supports=run_time_adapters))

    # --- streams ----------------------------------------------------------------------------------

    def outputs_opened(self, session_id: str) -> Session:
        """Note that the output stream is up, which completes the session.  Raises UnknownSession."""
        session = self.by_id(session_id)
        session.outputs_up = True
        self._work.outputs_opened(session)
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
        self._work.outputs_broken(session)
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
        self.close(session, reason)
        self._adapters.closed(session.instance_id)
        self._readiness.sleeps.closed(session.instance_id)
        self._losses.executor_lost(session.instance, reason)

    def close(self, session: Session, reason: str) -> None:
        """End a session and nothing else: a newer one of the same executor goes on with what it had."""
        if session.grace is not None:
            session.grace.cancel()
            session.grace = None
        self._table.remove(session)
        session.link.close(reason)

    # --- leases -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Make an instance SUSPECT after half a lease of silence, and LOST after ``lease_s``."""
        for session in self._table:
            silence_s = self._leases.silence_s(session.lease)
            if silence_s > self._settings.lease_s:
                self.lose(session, f"silent for {silence_s:.1f} s")
            elif silence_s > self._settings.lease_s / 2 and session.instance.state is InstanceState.READY:
                self._readiness.move(session.instance, InstanceState.SUSPECT, f"silent for {silence_s:.1f} s")
            elif self._without_output(session):
                self.lose(session, "its output stream did not come up")

    def _without_output(self, session: Session) -> bool:
        """Return whether a session that took over attempts has been without their output for longer than a lease."""
        return (
            not session.outputs_up
            and session.grace is None
            and self._leases.age_s(session.lease) > self._settings.lease_s
            and self._work.runs(session.instance_id)
        )


def _adapters_of(session: Session, *, supports: bool) -> InstanceAdapters:
    return InstanceAdapters(
        instance_id=session.instance_id,
        model=session.instance.spec.model,
        engine_start_id=session.engine_start_id,
        link=session.link,
        supports=supports,
    )
