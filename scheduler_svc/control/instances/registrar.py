"""Registers executors: opens their sessions, and says which attempts of an earlier one go on."""

from __future__ import annotations

import logging
import secrets

from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.instances.instance_list import InstanceList
from scheduler_svc.control.instances.instance_work import InstanceWork
from scheduler_svc.control.instances.lease import Leases
from scheduler_svc.control.instances.registration import DuplicateInstance, Registration, Welcome
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.domain.instance import Instance

log = logging.getLogger(__name__)

SECRET_BYTES = 16
"""Random bytes of a session's id and of the secret that resumes it."""


class Registrar:
    """Opens sessions.  An instance has one at most."""

    def __init__(
        self,
        table: SessionTable,
        sessions: Sessions,
        instances: InstanceList,
        work: InstanceWork,
        roles: KeptRoles,
        leases: Leases,
        settings: SessionSettings,
        *,
        epoch: int,
    ) -> None:
        self._table = table
        self._sessions = sessions
        self._instances = instances
        self._work = work
        self._roles = roles
        self._leases = leases
        self._settings = settings
        self._epoch = epoch

    def register(self, registration: Registration, link: ExecutorLink) -> Welcome:
        """Open a session for an executor whose control stream is up.

        Raises DuplicateInstance while another executor with this id is alive, or one that says to be the same and does
        not prove it; LimitReached.
        """
        spec = registration.spec
        old = self._earlier_session(registration)
        known = spec.instance_id in self._instances
        instance = self._instances.enter(spec)
        self._roles.registered(instance, registration.kept_role, link, known=known, keeps=registration.keeps_role)
        session = self._new_session(registration, instance, link, old)
        if old is not None:
            self._sessions.close(old, "replaced by a newer session of the same executor")
        self._sessions.open(session, run_time_adapters=registration.run_time_adapters)
        log.info("instance %s registered (model %s, role %s)", spec.instance_id, spec.model, instance.role.value)
        self._work.adopt(session, registration.held)
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

    def _new_session(
        self, registration: Registration, instance: Instance, link: ExecutorLink, old: Session | None
    ) -> Session:
        """Make the session of an instance, with what it has from the session that it goes on from."""
        session = Session(
            session_id=secrets.token_hex(SECRET_BYTES),
            instance=instance,
            engine_start_id=registration.spec.engine_start_id,
            resume_secret=old.resume_secret if old is not None else secrets.token_bytes(SECRET_BYTES),
            link=link,
            lease=self._leases.begin(),
        )
        if old is not None:
            session.assigns = old.assigns
            session.resend = self._work.keep_held(instance.instance_id, registration.held)
            session.resend_ended = self._work.kept_ends(instance.instance_id, registration.held)
        return session

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
            adopt_s=self._settings.adopt_s if self._work.adopts else None,
        )
