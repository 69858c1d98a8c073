"""Registers executors: opens their sessions, and says which attempts of an earlier one go on."""

from __future__ import annotations

import logging
import secrets

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adapters.instance_adapters import InstanceAdapters
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.registration import DuplicateInstance, Registration, Welcome
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.domain.errors import LimitReached
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import GONE
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

SECRET_BYTES = 16
"""Random bytes of a session's id and of the secret that resumes it."""


class Registrar:
    """Opens sessions.  An instance has one at most."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        table: SessionTable,
        readiness: Readiness,
        sessions: Sessions,
        attempts: AttemptTable,
        links: ExecutorLinks,
        adoption: Adoption,
        ends: KeptEnds,
        adapters: Adapters,
        roles: KeptRoles,
        decisions: OperatorDecisions,
        loop_lag: LoopLag,
        settings: SessionSettings,
        *,
        epoch: int,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._sessions = sessions
        self._attempts = attempts
        self._links = links
        self._adoption = adoption
        self._ends = ends
        self._adapters = adapters
        self._roles = roles
        self._decisions = decisions
        self._loop_lag = loop_lag
        self._settings = settings
        self._epoch = epoch

    def register(self, registration: Registration, link: ExecutorLink) -> Welcome:
        """Open a session for an executor whose control stream is up.

        Raises DuplicateInstance while another executor with this id is alive, or one that says to be the same and does
        not prove it; LimitReached.
        """
        spec = registration.spec
        old = self._earlier_session(registration)
        self._forget_failures_of_old_engine(spec)
        known = self._scheduler.find_instance(spec.instance_id) is not None
        instance = self._registered(spec)
        self._give_decided_role(instance)
        self._roles.registered(instance, registration.kept_role, link, known=known, keeps=registration.keeps_role)
        session = self._new_session(registration, instance, link, old)
        if old is not None:
            self._sessions.close(old, "replaced by a newer session of the same executor")
        self._open(session)
        self._readiness.sleeps.opened(instance, link)
        self._adapters.opened(_adapters_of(session, supports=registration.run_time_adapters))
        log.info("instance %s registered (model %s, role %s)", spec.instance_id, spec.model, instance.role.value)
        others = [each for each in registration.held if (each.epoch, each.number) not in session.resend_ended]
        self._adoption.registered(spec.instance_id, others, link)
        return self._welcome(session)

    def _earlier_session(self, registration: Registration) -> Session | None:
        """Return the session that this one goes on from; end one that the executor does not go on from.

        Raises DuplicateInstance.
        """
        spec = registration.spec
        old = self._table.find(spec.instance_id)
        if old is None or old.is_of(registration):
            return old
        if old.control_up or old.engine_start_id == spec.engine_start_id:
            raise DuplicateInstance(spec.instance_id)
        self._sessions.lose(old, "started again")
        return None

    def _forget_failures_of_old_engine(self, spec: InstanceSpec) -> None:
        """Drop the cool-down if the engine is new: it is not to blame for failures of the old one."""
        known = self._scheduler.find_instance(spec.instance_id)
        if known is not None and known.spec.engine_start_id != spec.engine_start_id:
            self._readiness.cool_downs.forget(spec.instance_id)

    def _registered(self, spec: InstanceSpec) -> Instance:
        """Register an instance.  At a limit, those that are gone make room: the longest gone first, cordoned ones last.

        Raises LimitReached if the limit is reached all the same.
        """
        now, cordoned = self._clock.now(), self._readiness.drains.cordoned
        gone = (i for i in self._scheduler.instances() if i.state in GONE and i.instance_id not in self._table)
        longest_first = iter(sorted(gone, key=lambda i: (cordoned(i.instance_id), i.state_since)))
        while True:
            try:
                return self._scheduler.register(spec, now)
            except LimitReached:
                victim = next((i for i in longest_first if i.instance_id != spec.instance_id), None)
                if victim is None:
                    raise
                log.info("instance %s, which is gone, is forgotten to make room", victim.instance_id)
                self._readiness.forget(victim.instance_id)

    def _give_decided_role(self, instance: Instance) -> None:
        """Give an instance the role that an operator gave it under an earlier scheduler, if it can have it."""
        role = self._decisions.instance(instance.instance_id).role
        if role is not None and role is not instance.role and role.embeds is instance.spec.role.embeds:
            self._scheduler.set_role(instance.instance_id, role)

    def _new_session(
        self, registration: Registration, instance: Instance, link: ExecutorLink, old: Session | None
    ) -> Session:
        """Make the session of an instance, with what it has from the session that it goes on from."""
        now = self._clock.now()
        session = Session(
            session_id=secrets.token_hex(SECRET_BYTES),
            instance=instance,
            engine_start_id=registration.spec.engine_start_id,
            resume_secret=old.resume_secret if old is not None else secrets.token_bytes(SECRET_BYTES),
            link=link,
            registered_at=now,
            last_heard_at=now,
            lag_then_s=self._loop_lag.lost_s,
        )
        if old is not None:
            session.assigns = old.assigns
            session.resend = self._kept(registration)
            session.resend_ended = self._kept_ends(registration)
        return session

    def _kept(self, registration: Registration) -> tuple[int, ...]:
        """Return the held attempts that go on, by number.

        An attempt that the executor does not hold was lost on the way.  Attempts that are not kept the executor drops
        without reporting an end, so the capacity of fenced ones is free as well.
        """
        held = {self._attempts.names.number(h.epoch, h.number) for h in registration.held}
        held |= {h.number for h in registration.held if h.epoch == self._epoch}
        keep = []
        for attempt in self._attempts.on_instance(registration.spec.instance_id):
            if attempt.number in held and not attempt.fenced:
                keep.append(attempt.number)
            else:
                self._attempts.never_arrived(attempt)
        return tuple(keep)

    def _kept_ends(self, registration: Registration) -> tuple[tuple[int, int], ...]:
        """Return the held attempts whose ends the executor keeps for readers, by epoch and number."""
        held = {(each.epoch, each.number) for each in registration.held}
        return tuple(name for name in self._ends.attempts(registration.spec.instance_id) if name in held)

    def _open(self, session: Session) -> None:
        self._table.add(session)
        self._links.open(session.instance_id, session)
        for attempt in self._attempts.on_instance(session.instance_id):
            attempt.link = session.link
        self._readiness.hold_back(session)
        if self._readiness.drains.cordoned(session.instance_id):
            session.link.drain(resume=False)  # an executor forgets a drain with its session

    def _welcome(self, session: Session) -> Welcome:
        return Welcome(
            session_id=session.session_id,
            epoch=self._epoch,
            lease_s=self._settings.lease_s,
            heartbeat_interval_s=self._settings.heartbeat_interval_s,
            keep=session.resend,
            keep_ended=session.resend_ended,
            role=session.instance.role,
            resume_secret=session.resume_secret,
            adopt_s=self._settings.adopt_s if self._adoption.on else None,
        )


def _adapters_of(session: Session, *, supports: bool) -> InstanceAdapters:
    return InstanceAdapters(
        instance_id=session.instance_id,
        model=session.instance.spec.model,
        engine_start_id=session.engine_start_id,
        link=session.link,
        supports=supports,
    )
