"""Executors' sessions and leases: what happens when an executor comes, falls silent, reconnects or goes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adapters.instance_adapters import AdapterReport, InstanceAdapters
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.instances.cool_downs import CoolDowns
from scheduler_svc.control.instances.drains import Drains
from scheduler_svc.control.instances.fleet_observer import NULL_FLEET_OBSERVER, FleetObserver
from scheduler_svc.control.instances.registration import (
    DuplicateInstance,
    Registration,
    UnknownSession,
    Welcome,
)
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.sleep.instance_sleep import InstanceSleep, SleepReport
from scheduler_svc.control.sleep.sleeps import Sleeps
from scheduler_svc.control.sleep.wakes import Wakes
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import LimitReached
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import GONE, STARTING, InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

ACKNOWLEDGED_SHARE = 0.2
"""Share of the lease after which a heartbeat is acknowledged again: an executor gives up after a whole one without."""

_SLEEP_UNKNOWN = "its executor has not said yet whether its engine sleeps"

SECRET_BYTES = 16
"""Random bytes of a session's id and of the secret that resumes it."""


class Sessions:
    """The sessions by instance, at most one each.  Bounded by the scheduler's limit of instances.

    Implements InstanceListener: attempts report failures and successes on their instances.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        attempts: AttemptTable,
        handoffs: Handoffs,
        links: ExecutorLinks,
        tokenizers: Tokenizers,
        loop_lag: LoopLag,
        wakeup: Wakeup,
        models: ModelDirectory,
        settings: SessionSettings,
        *,
        epoch: int,
        observer: FleetObserver = NULL_FLEET_OBSERVER,
        adoption: Adoption,
        ends: KeptEnds,
        decisions: OperatorDecisions,
        adapters: Adapters,
        roles: KeptRoles,
        seen: Callable[[Mapping[str, str]], None] = lambda models: None,
    ) -> None:
        """``seen`` is told the models of the instances that have a session, by id, whenever that changes."""
        self._scheduler = scheduler
        self._clock = clock
        self._attempts = attempts
        self._handoffs = handoffs
        self._links = links
        self._tokenizers = tokenizers
        self._loop_lag = loop_lag
        self._wakeup = wakeup
        self._models = models
        self._settings = settings
        self._epoch = epoch
        self._observer = observer
        self._adoption = adoption
        self._ends = ends
        self._seen = seen
        self._decisions = decisions
        self._adapters = adapters
        self._roles = roles
        self._drains = Drains(scheduler, clock, decisions)
        self._sleeps = Sleeps(scheduler, clock, awake=self._is_awake)
        self._wakes = Wakes(scheduler, self._sleeps, may_be_woken=self._may_be_woken, wake=self.wake)
        self._cool_downs = CoolDowns(clock, settings, self._cooled_down)
        self._sessions: dict[str, Session] = {}  # by instance id
        self._by_id: dict[str, Session] = {}
        models.on_missing_tokenizer(self._ask_for_tokenizer)

    def now(self) -> float:
        """Return the time, in seconds on the control clock."""
        return self._clock.now()

    def tell_seen(self) -> None:
        """Tell ``seen`` again which instances have a session."""
        self._seen(self.models)

    @property
    def models(self) -> Mapping[str, str]:
        """The models of the instances that have a session, by the instances' ids."""
        return {each.instance_id: each.instance.spec.model for each in self._sessions.values()}

    # --- coming and going -------------------------------------------------------------------------

    def register(self, registration: Registration, link: ExecutorLink) -> Welcome:
        """Open a session for an executor whose control stream is up.

        Raises DuplicateInstance while another executor with this id is alive, or one that says to be the same and does
        not prove it.
        """
        spec = registration.spec
        instance_id = spec.instance_id
        old = self._sessions.get(instance_id)
        if old is not None and not old.is_of(registration):
            if old.control_up or old.engine_start_id == spec.engine_start_id:
                raise DuplicateInstance(instance_id)
            self._lose(old, "started again")
            old = None
        self._forget_failures_of_old_engine(spec)
        now, known = self._clock.now(), self._scheduler.find_instance(instance_id) is not None
        instance = self._registered(spec, now)
        self._give_decided_role(instance)
        self._roles.registered(instance, registration.kept_role, link, known=known, keeps=registration.keeps_role)
        keep = self._kept(instance_id, registration) if old is not None else ()
        keep_ended = self._kept_ends(instance_id, registration) if old is not None else ()
        session = Session(
            session_id=secrets.token_hex(SECRET_BYTES),
            instance=instance,
            engine_start_id=spec.engine_start_id,
            resume_secret=old.resume_secret if old is not None else secrets.token_bytes(SECRET_BYTES),
            link=link,
            registered_at=now,
            last_heard_at=now,
            lag_then_s=self._loop_lag.lost_s,
            assigns=old.assigns if old is not None else 0,
            resend=keep,
            resend_ended=keep_ended,
        )
        if old is not None:
            self._close(old, "replaced by a newer session of the same executor")
        self._open(session)
        self._sleeps.opened(instance, link)
        self._adapters.opened(_adapters_of(session, supports=registration.run_time_adapters))
        log.info("instance %s registered (model %s, role %s)", instance_id, spec.model, instance.role.value)
        others = [each for each in registration.held if (each.epoch, each.number) not in keep_ended]
        self._adoption.registered(instance_id, others, link)
        return Welcome(
            session_id=session.session_id,
            epoch=self._epoch,
            lease_s=self._settings.lease_s,
            heartbeat_interval_s=self._settings.heartbeat_interval_s,
            keep=keep,
            keep_ended=keep_ended,
            role=instance.role,
            resume_secret=session.resume_secret,
            adopt_s=self._settings.adopt_s if self._adoption.on else None,
        )

    def _registered(self, spec: InstanceSpec, now: float) -> Instance:
        """Register an instance.  At a limit, those that are gone make room: the longest gone first, cordoned ones last.

        Raises LimitReached if the limit is reached all the same.
        """
        gone = (i for i in self._scheduler.instances() if i.state in GONE and i.instance_id not in self._sessions)
        longest_first = iter(sorted(gone, key=lambda i: (self._drains.cordoned(i.instance_id), i.state_since)))
        while True:
            try:
                return self._scheduler.register(spec, now)
            except LimitReached:
                victim = next((i for i in longest_first if i.instance_id != spec.instance_id), None)
                if victim is None:
                    raise
                log.info("instance %s, which is gone, is forgotten to make room", victim.instance_id)
                self._forget(victim.instance_id)

    def _give_decided_role(self, instance: Instance) -> None:
        """Give an instance the role that an operator gave it under an earlier scheduler, if it can have it."""
        role = self._decisions.instance(instance.instance_id).role
        if role is not None and role is not instance.role and role.embeds is instance.spec.role.embeds:
            self._scheduler.set_role(instance.instance_id, role)

    def _forget(self, instance_id: str) -> None:
        self._scheduler.forget(instance_id)
        self._cool_downs.forget(instance_id)
        self._drains.forget(instance_id)

    def _ask_for_tokenizer(self, model: str, tokenizer_hash: str) -> None:
        """Ask a live instance of the model for its tokenizer files, which were dropped to make room for others."""
        for instance in self._scheduler.instances(model):
            session = self._sessions.get(instance.instance_id)
            facts = instance.facts
            if session is not None and session.up and facts is not None and facts.tokenizer_hash == tokenizer_hash:
                session.link.want_tokenizer(tokenizer_hash)
                return

    def _open(self, session: Session) -> None:
        self._sessions[session.instance_id] = session
        self.tell_seen()
        self._by_id[session.session_id] = session
        self._links.open(session.instance_id, session)
        for attempt in self._attempts.on_instance(session.instance_id):
            attempt.link = session.link
        self._hold_back(session)
        if self._drains.cordoned(session.instance_id):
            session.link.drain(resume=False)  # an executor forgets a drain with its session

    def by_id(self, session_id: str) -> Session:
        """Return the session of this id.  Raises UnknownSession."""
        session = self._by_id.get(session_id)
        if session is None:
            raise UnknownSession()
        return session

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
        self._recover(session, "streams are up again" if session.was_up else "its engine is ready")
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

    def goodbye(self, session: Session, reason: str) -> None:
        """End the session at once: its executor leaves for good."""
        if self.current(session):
            self._lose(session, f"said goodbye: {reason}" if reason else "said goodbye")

    def end_all(self, reason: str) -> None:
        """End every session; messages that were queued before are still sent, and none after them."""
        for session in list(self._sessions.values()):
            session.link.close(reason)

    def renew_lease(self, session: Session) -> None:
        """Renew the session's lease, because a message of its executor arrived."""
        session.last_heard_at = self._clock.now()
        session.lag_then_s = self._loop_lag.lost_s

    # --- what executors report --------------------------------------------------------------------

    def engine_status(
        self,
        session: Session,
        state: InstanceState,
        progress: float | None,
        message: str,
        facts: EngineFacts | None,
    ) -> None:
        """Take the state of an executor's engine.

        ``progress`` of the engine's start is in [0, 1]; None if unknown.  ``facts`` come with READY.
        """
        if not self.current(session):
            return
        instance = session.instance
        self.renew_lease(session)
        if state is InstanceState.READY and facts is not None:
            self._engine_ready(session, facts)
        elif state is InstanceState.FAILED or instance.state in STARTING or instance.state in GONE:
            self._move(instance, state, message)
            instance.progress = progress
            if state is InstanceState.FAILED:
                self._free(instance, message, engine_died=True)
            self._adoption.engine_starts(session.instance_id)
        self._wakeup.notify()

    def _engine_ready(self, session: Session, facts: EngineFacts) -> None:
        instance = session.instance
        if not self._tokenizers.has(facts.tokenizer_hash):
            self._models.asked(facts.tokenizer_hash)
            session.link.want_tokenizer(facts.tokenizer_hash)
        self._scheduler.engine_ready(session.instance_id, facts, self._clock.now())
        self._adapters.engine_ready(session.instance_id)
        drain_reason = self._drains.reason(session)
        if instance.state is InstanceState.READY and drain_reason is not None:
            self._move(instance, InstanceState.DRAINING, drain_reason)
            self._finish_drain(session.instance_id)
        self._hold_back(session)
        self._models.ready(session.instance.spec.model)
        self._adoption.engine_ready(session.instance_id, session.link)
        log.info("instance %s is ready", session.instance_id)

    def heartbeat(self, session: Session, load: LoadReport) -> None:
        """Take a heartbeat, which renews the lease."""
        if not self.current(session):
            return
        self.renew_lease(session)
        now = self._clock.now()
        self._scheduler.report(session.instance_id, load, now)
        self._observer.heartbeat(session.instance, load, now)
        if now - session.acknowledged_at >= self._settings.silence_s * ACKNOWLEDGED_SHARE:
            session.acknowledged_at = now
            session.link.acknowledge_heartbeat(load.number)
        cooling_down = self._cool_downs.reason(session.instance_id) is not None
        if session.instance.state is InstanceState.SUSPECT and session.up and not cooling_down:
            self._recover(session, "heartbeats are back")
        self._wakeup.notify()

    def held_assign(self, session: Session, name: tuple[int, int], held: HeldRequest | None) -> None:
        """Take an executor's answer about an attempt that it holds; see ``Adoption.answered``."""
        if self.current(session):
            self._adoption.answered(session.instance_id, name, held, session.link)
            self._wakeup.notify()

    def adapter_states(self, session: Session, number: int, reports: Sequence[AdapterReport]) -> None:
        """Take what an executor says of all its run-time adapters; ``number``: of the latest order that it knew."""
        if self.current(session):
            self._adapters.reported(session.instance_id, number, reports)

    def sleep_report(self, session: Session, report: SleepReport) -> None:
        """Take what an executor says of its engine's sleep."""
        if self.current(session):
            self._sleeps.reported(session.instance, report, drained=self._drains.reason(session) is not None)
            self._wakeup.notify()

    def cache_report(self, session: Session, number: int, report: CacheReport) -> None:
        """Take a report of an engine's prefix cache; after a gap in the numbers, nothing before it counts."""
        if not self.current(session):
            return
        if number != session.cache_reports + 1 and not report.cleared:
            log.warning(
                "instance %s: prefix cache report %d came after %d: what was reported before does not count",
                session.instance_id,
                number,
                session.cache_reports,
            )
            report = replace(report, cleared=True)
        session.cache_reports = number
        self._scheduler.report_cache(session.instance_id, report)

    # --- InstanceListener -------------------------------------------------------------------------

    def attempt_failed(self, instance_id: str, message: str, key: RequestKey) -> None:
        """Let the instance cool down if attempts at enough different requests failed there in a row."""
        self._failed(instance_id, message, key)

    def attempt_rejected(self, instance_id: str, reason: str) -> None:
        """Let the instance cool down if it rejected enough attempts in a row, of whichever requests."""
        self._failed(instance_id, f"rejected: {reason}", None)

    def engine_died(self, instance_id: str, message: str) -> None:
        """Take the instance out at once: the executor's report that its engine died is still on its way."""
        session = self._sessions.get(instance_id)
        if session is not None and session.instance.state not in GONE:
            self._move(session.instance, InstanceState.FAILED, message)
            self._free(session.instance, message, engine_died=True)

    def _failed(self, instance_id: str, message: str, key: RequestKey | None) -> None:
        session = self._sessions.get(instance_id)
        ready = session is not None and session.instance.state is InstanceState.READY
        reason = self._cool_downs.failed(instance_id, message, may_start=ready, key=key)
        if session is not None and reason is not None:
            self._move(session.instance, InstanceState.SUSPECT, reason)

    def drains(self, instance_id: str) -> None:
        """Drain an instance whose executor rejects attempts because it drains, as if it had asked for it already."""
        session = self._sessions.get(instance_id)
        if session is not None and not session.leaving:
            self._drains.start(session.instance, session, "rejects attempts: it drains", by_operator=False)

    def attempt_succeeded(self, instance_id: str) -> None:
        """Forget earlier failures on the instance."""
        self._cool_downs.succeeded(instance_id)

    def idle(self, instance_id: str) -> None:
        """Finish the instance's drain, if there is one."""
        self._finish_drain(instance_id)

    # --- draining ---------------------------------------------------------------------------------

    def drain(self, instance_id: str, reason: str, *, by_operator: bool) -> Instance:
        """Give an instance no new work; it is DRAINED once nothing is in flight.

        An operator's drain outlives the executor; the executor's own ends with its engine.
        Raises InstanceNotFound, InvalidTransition.
        """
        instance = self._scheduler.instance(instance_id)
        self._drains.start(instance, self._sessions.get(instance_id), reason, by_operator=by_operator)
        self._sleeps.follow(instance)
        self._ends.release_all(instance_id)  # a drained executor holds nothing
        return instance

    def resume(self, instance_id: str) -> Instance:
        """Lift a drain, also of an instance without a session.  Raises InstanceNotFound, InvalidTransition."""
        instance = self._scheduler.instance(instance_id)
        session = self._sessions.get(instance_id)
        takes_work_again = self._drains.lift(instance, session)
        self._sleeps.cancel(instance)
        if session is not None:
            if takes_work_again:
                self._hold_back(session)
            self._wakeup.notify()
        return instance

    # --- sleep ------------------------------------------------------------------------------------

    def sleep(self, instance_id: str, reason: str) -> Instance:
        """Have an instance drain and then sleep; it takes nothing until it is woken.

        Raises InstanceNotFound, InvalidTransition, InvalidRequest (its engine cannot sleep).
        """
        instance = self._scheduler.instance(instance_id)
        self._sleeps.sleep(instance, reason)
        self._finish_drain(instance_id)
        return instance

    def wake(self, instance_id: str) -> Instance:
        """Have an instance be awake.  Raises as ``sleep`` does."""
        instance = self._scheduler.instance(instance_id)
        self._sleeps.wake(instance, drained=self.drained(instance_id))
        return instance

    def give_back(self, instance_id: str, reason: str) -> int:
        """Have the requests that run on an instance wait again, with the tokens they have; return how many did."""
        return self._attempts.give_back(instance_id, reason)

    def sleep_of(self, instance_id: str) -> InstanceSleep | None:
        """Return what an instance was told about its sleep, and what it says; None if it has no session."""
        return self._sleeps.find(instance_id)

    def drained(self, instance_id: str) -> bool:
        """Return whether an instance is to take nothing, because an operator drained it or its executor leaves."""
        session = self._sessions.get(instance_id)
        return session is not None and self._drains.reason(session) is not None

    def _may_be_woken(self, instance_id: str) -> bool:
        return instance_id in self._sessions and not self.drained(instance_id)

    def _is_awake(self, instance_id: str) -> None:
        session = self._sessions.get(instance_id)
        if session is not None:
            self._hold_back(session)
            self._recover(session, "its engine is awake")
            self._wakeup.notify()

    def _finish_drain(self, instance_id: str) -> None:
        self._drains.finish_if_empty(instance_id)
        if (instance := self._scheduler.find_instance(instance_id)) is not None:
            self._sleeps.follow(instance)

    # --- checks that the watchdog runs ------------------------------------------------------------

    def check_leases(self) -> None:
        """Make an instance SUSPECT after half a lease of silence, and LOST after ``lease_s``."""
        now = self._clock.now()
        for session in list(self._sessions.values()):
            # Silence counts from when a message was read, less the time by which this process read late.
            silence = now - session.last_heard_at - (self._loop_lag.lost_s - session.lag_then_s)
            if silence > self._settings.lease_s:
                self._lose(session, f"silent for {silence:.1f} s")
            elif silence > self._settings.lease_s / 2 and session.instance.state is InstanceState.READY:
                self._move(session.instance, InstanceState.SUSPECT, f"silent for {silence:.1f} s")
            elif self._without_output(session, now):
                self._lose(session, "its output stream did not come up")

    def check_progress(self) -> None:
        """Fence the attempts on instances that stall, and give work again to instances that recovered."""
        for verdict in self._scheduler.check_health(self._clock.now()):
            log.warning("instance %s is %s: %s", verdict.instance_id, verdict.state.value, verdict.reason)
            if verdict.state is InstanceState.STALLED:
                self._attempts.instance_stalled(verdict.instance_id, verdict.reason)
                self._handoffs.instance_stalled(verdict.instance_id, verdict.reason)
            elif (recovered := self._sessions.get(verdict.instance_id)) is not None:
                self._hold_back(recovered)
                self._finish_drain(verdict.instance_id)
            self._wakeup.notify()

    def check_instances(self) -> None:
        """Finish drains whose last reservation ended without an event; wake instances that requests wait for.

        Forget instances that are gone for ``forget_after_s``.
        """
        now = self._clock.now()
        self._wakes.check()
        for instance in self._scheduler.instances():
            instance_id = instance.instance_id
            self._finish_drain(instance_id)
            gone = instance_id not in self._sessions
            if gone and now - instance.state_since > self._settings.forget_after_s:
                self._forget(instance_id)

    # --- inside -----------------------------------------------------------------------------------

    def _kept(self, instance_id: str, registration: Registration) -> tuple[int, ...]:
        """Return the held attempts that go on, by number.

        An attempt that the executor does not hold was lost on the way.  Attempts that are not kept the executor drops
        without reporting an end, so the capacity of fenced ones is free as well.
        """
        held = {self._attempts.names.number(h.epoch, h.number) for h in registration.held}
        held |= {h.number for h in registration.held if h.epoch == self._epoch}
        keep = []
        for attempt in self._attempts.on_instance(instance_id):
            if attempt.number in held and not attempt.fenced:
                keep.append(attempt.number)
            else:
                self._attempts.never_arrived(attempt)
        return tuple(keep)

    def _kept_ends(self, instance_id: str, registration: Registration) -> tuple[tuple[int, int], ...]:
        """Return the held attempts whose ends the executor keeps for readers, by epoch and number."""
        held = {(each.epoch, each.number) for each in registration.held}
        return tuple(name for name in self._ends.attempts(instance_id) if name in held)

    def _forget_failures_of_old_engine(self, spec: InstanceSpec) -> None:
        """Drop the cool-down if the engine is new: it is not to blame for failures of the old one."""
        known = self._scheduler.find_instance(spec.instance_id)
        if known is not None and known.spec.engine_start_id != spec.engine_start_id:
            self._cool_downs.forget(spec.instance_id)

    def _hold_back(self, session: Session) -> None:
        """Make the instance SUSPECT, so that it gets no work, until both streams are up and no cool-down runs."""
        if session.instance.state not in (InstanceState.READY, InstanceState.DRAINING):
            return
        reason = self._cool_downs.reason(session.instance_id)
        if not session.up:
            self._move(session.instance, InstanceState.SUSPECT, "its streams are not both up yet")
        elif reason is not None:
            self._move(session.instance, InstanceState.SUSPECT, reason)
        elif self._sleeps.unknown(session.instance):
            self._move(session.instance, InstanceState.SUSPECT, _SLEEP_UNKNOWN)

    def _without_output(self, session: Session, now: float) -> bool:
        """Return whether a session that took over attempts has been without their output for longer than a lease."""
        return (
            not session.outputs_up
            and session.grace is None
            and now - session.registered_at > self._settings.lease_s
            and bool(self._attempts.on_instance(session.instance_id))
        )

    def _broken(self, session: Session, reason: str) -> None:
        if not self.current(session):
            return
        log.warning("instance %s: %s", session.instance_id, reason)
        if session.instance.state in (InstanceState.READY, InstanceState.DRAINING):
            self._move(session.instance, InstanceState.SUSPECT, reason)
        if session.grace is None:
            session.grace = self._clock.call_at(
                self._clock.now() + self._settings.reconnect_grace_s,
                lambda: self._grace_over(session, reason),
            )

    def _grace_over(self, session: Session, reason: str) -> None:
        session.grace = None
        if self.current(session) and not session.up:
            self._lose(session, reason)

    def _recover(self, session: Session, reason: str) -> None:
        """Take the instance out of SUSPECT if both streams are up and no cool-down runs."""
        if session.grace is not None and session.up:
            session.grace.cancel()
            session.grace = None
        instance = session.instance
        if instance.state is not InstanceState.SUSPECT or instance.facts is None or not session.up:
            return
        cool_down_reason = self._cool_downs.reason(session.instance_id)
        if cool_down_reason is not None:
            self._move(instance, InstanceState.SUSPECT, cool_down_reason)  # this is the reason from now on
            return
        if self._sleeps.unknown(instance):
            self._move(instance, InstanceState.SUSPECT, _SLEEP_UNKNOWN)
            return
        self._scheduler.recover(session.instance_id, reason, self._clock.now())
        self._finish_drain(session.instance_id)
        self._wakeup.notify()

    def _cooled_down(self, instance_id: str) -> None:
        session = self._sessions.get(instance_id)
        if session is not None:
            self._recover(session, "its cool-down is over; it must prove itself")

    def _lose(self, session: Session, reason: str) -> None:
        """End a session; the attempts' requests go on elsewhere."""
        instance = session.instance
        self._close(session, reason)
        self._adapters.closed(session.instance_id)
        self._sleeps.closed(session.instance_id)
        log.warning("instance %s is gone: %s", instance.instance_id, reason)
        if instance.state is not InstanceState.FAILED:
            self._move(instance, InstanceState.LOST, reason)
        self._free(instance, instance.state_reason)

    def _free(self, instance: Instance, reason: str, *, engine_died: bool = False) -> None:
        """End the attempts and free the reservations of an engine that is gone."""
        self._adoption.lost(instance.instance_id)
        self._ends.release_all(instance.instance_id)
        self._attempts.instance_lost(instance.instance_id, reason, engine_died=engine_died)
        self._handoffs.instance_lost(instance.instance_id, reason)
        self._scheduler.lose(instance.instance_id, reason, self._clock.now())
        self._observer.engine_gone(instance, self._clock.now())
        self._wakeup.notify()

    def _close(self, session: Session, reason: str) -> None:
        if session.grace is not None:
            session.grace.cancel()
            session.grace = None
        if self.current(session):
            del self._sessions[session.instance_id]
            self.tell_seen()
            self._links.close(session.instance_id)
        self._by_id.pop(session.session_id, None)
        session.link.close(reason)

    def current(self, session: Session) -> bool:
        """Return whether this is still the instance's session; late messages of a replaced one are ignored."""
        return self._sessions.get(session.instance_id) is session

    def _move(self, instance: Instance, state: InstanceState, reason: str) -> None:
        self._scheduler.transition(instance.instance_id, state, reason, self._clock.now())


def _adapters_of(session: Session, *, supports: bool) -> InstanceAdapters:
    return InstanceAdapters(
        instance_id=session.instance_id,
        model=session.instance.spec.model,
        engine_start_id=session.engine_start_id,
        link=session.link,
        supports=supports,
    )
