"""Which executors are here, and what follows when one comes, falls silent, rests, drains or goes."""

from __future__ import annotations

import logging
import secrets

from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.instances.registration import (
    DuplicateInstance,
    Registration,
    SessionSettings,
    UnknownSession,
    Welcome,
)
from scheduler_svc.control.instances.session import Probation, Session
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.timing.clock import ControlClock
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import InvalidTransition
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

MAX_DOUBLINGS = 10  # of a rest; it is capped long before
STARTING = frozenset({InstanceState.DOWNLOADING, InstanceState.LOADING, InstanceState.WARMING})
GONE = frozenset({InstanceState.LOST, InstanceState.FAILED})
DRAINS = frozenset({InstanceState.DRAINING, InstanceState.DRAINED})


class Sessions:
    """Bounded by the registry's bound on instances; one session per instance."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: ControlClock,
        assignments: AttemptTable,
        tokenizers: Tokenizers,
        pacer: LoopLag,
        wakeup: Wakeup,
        models: ModelDirectory,
        settings: SessionSettings,
        *,
        epoch: int,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._assignments = assignments
        self._tokenizers = tokenizers
        self._pacer = pacer
        self._wakeup = wakeup
        self._models = models
        self._settings = settings
        self._epoch = epoch
        self._sessions: dict[str, Session] = {}  # by instance id
        self._by_id: dict[str, Session] = {}
        self._cordoned: set[str] = set()  # drained by an operator; outlives the executor
        self._probation: dict[str, Probation] = {}

    # --- coming and going -------------------------------------------------------------------------

    def register(self, registration: Registration, link: ExecutorLink) -> Welcome:
        """A control stream opened.  Raises DuplicateInstance while another executor of this id is alive."""
        spec = registration.spec
        instance_id = spec.instance_id
        old = self._sessions.get(instance_id)
        same_engine = old is not None and old.engine_start_id == spec.engine_start_id
        if old is not None and not same_engine:
            if old.control_up:
                raise DuplicateInstance(instance_id)
            self._lose(old, "started again")
            old = None
        now = self._clock.now()
        self._forgive(spec)
        instance = self._scheduler.register(spec, now)
        keep = self._kept(instance_id, registration) if old is not None else ()
        session = Session(
            session_id=secrets.token_hex(8),
            instance=instance,
            engine_start_id=spec.engine_start_id,
            link=link,
            registered_at=now,
            last_heard_at=now,
            lag_then_s=self._pacer.lost_s,
            assigns=old.assigns if old is not None else 0,
            resend=keep,
        )
        if old is not None:
            self._close(old, "replaced by a newer session of the same executor")
        self._sessions[instance_id] = session
        self._by_id[session.session_id] = session
        log.info("instance %s registered (model %s, role %s)", instance_id, spec.model, instance.role.value)
        for assignment in self._assignments.on_instance(instance_id):
            assignment.link = link
        self._hold_back(session)
        if instance_id in self._cordoned:
            link.drain(resume=False)  # an executor forgets a drain with its session
        return Welcome(
            session_id=session.session_id,
            epoch=self._epoch,
            lease_s=self._settings.lease_s,
            heartbeat_interval_s=self._settings.heartbeat_interval_s,
            keep=keep,
            role=instance.role,
        )

    def by_id(self, session_id: str) -> Session:
        """Raises UnknownSession."""
        session = self._by_id.get(session_id)
        if session is None:
            raise UnknownSession(session_id)
        return session

    def outputs_opened(self, session_id: str) -> Session:
        """The output stream is up: the session is whole.  Raises UnknownSession."""
        session = self.by_id(session_id)
        session.outputs_up = True
        for number in session.resend:
            assignment = self._assignments.find(number)
            if assignment is not None:
                session.link.resend(number, len(assignment.live.output))
        session.resend = ()
        self._recover(session, "streams are up again")
        return session

    def control_broken(self, session: Session, reason: str) -> None:
        session.control_up = False
        self._broken(session, f"control stream broke: {reason}")

    def outputs_broken(self, session: Session, reason: str) -> None:
        session.outputs_up = False
        # What was under way on the stream is asked for again when it is back.
        session.resend = tuple(a.number for a in self._assignments.on_instance(session.instance_id) if not a.fenced)
        self._broken(session, f"output stream broke: {reason}")

    def goodbye(self, session: Session, reason: str) -> None:
        """It leaves for good; nothing need be waited for."""
        if self._current(session):
            self._lose(session, f"said goodbye: {reason}" if reason else "said goodbye")

    def end_all(self, reason: str) -> None:
        """End every session; what was said to its executor before still goes out."""
        for session in list(self._sessions.values()):
            session.link.close(reason)

    def heard(self, session: Session) -> None:
        session.last_heard_at = self._clock.now()
        session.lag_then_s = self._pacer.lost_s

    # --- what it reports --------------------------------------------------------------------------

    def engine_status(
        self,
        session: Session,
        state: InstanceState,
        progress: float | None,
        message: str,
        facts: EngineFacts | None,
    ) -> None:
        if not self._current(session):
            return
        now, instance = self._clock.now(), session.instance
        self.heard(session)
        if state is InstanceState.READY and facts is not None:
            if not self._tokenizers.has(facts.tokenizer_hash):
                session.link.want_tokenizer(facts.tokenizer_hash)
            self._scheduler.engine_ready(session.instance_id, facts, now)
            if instance.state is InstanceState.READY and (session.instance_id in self._cordoned or session.leaving):
                why = "asked to be drained" if session.leaving else "drained by an operator"
                self._move(instance, InstanceState.DRAINING, why)
                self.attempt_gone(session.instance_id)
            self._hold_back(session)
            self._models.ready(session.instance.spec.model, facts)
            log.info("instance %s is ready", session.instance_id)
        elif state is InstanceState.FAILED or instance.state in STARTING or instance.state in GONE:
            self._move(instance, state, message)
            instance.progress = progress
            if state is InstanceState.FAILED:
                self._free(instance, message)
        self._wakeup.kick()

    def heartbeat(self, session: Session, load: LoadReport) -> None:
        if not self._current(session):
            return
        self.heard(session)
        self._scheduler.report(session.instance_id, load, self._clock.now())
        session.link.acknowledge_heartbeat(load.number)
        if session.instance.state is InstanceState.SUSPECT and session.up and not self._resting(session.instance_id):
            self._recover(session, "heartbeats are back")
        self._wakeup.kick()

    # --- what assignments tell --------------------------------------------------------------------

    def link_of(self, instance_id: str) -> tuple[ExecutorLink, int] | None:
        session = self._sessions.get(instance_id)
        if session is None or not session.up:
            return None
        return session.link, session.next_assign()

    def any_link(self, instance_id: str) -> ExecutorLink | None:
        session = self._sessions.get(instance_id)
        return session.link if session is not None and session.up else None

    def attempt_failed(self, instance_id: str, message: str) -> None:
        """Failures (or rejections) in a row put the instance to rest, longer each time."""
        probation = self._probation.setdefault(instance_id, Probation())
        probation.failures += 1
        needed = 1 if probation.rests else self._settings.failures_to_suspect
        session = self._sessions.get(instance_id)
        if probation.failures < needed or session is None or session.instance.state is not InstanceState.READY:
            return
        rest = min(
            self._settings.probation_s * 2 ** min(probation.rests, MAX_DOUBLINGS), self._settings.probation_max_s
        )
        probation.rests += 1
        probation.failures = 0
        why = f"failures in a row, the latest: {message}; rests {rest:.0f} s"
        probation.why = why
        self._move(session.instance, InstanceState.SUSPECT, why)
        probation.timer = self._clock.call_at(self._clock.now() + rest, lambda: self._rested(instance_id))

    def attempt_succeeded(self, instance_id: str) -> None:
        probation = self._probation.pop(instance_id, None)
        if probation is not None and probation.timer is not None:
            probation.timer.cancel()

    def attempt_gone(self, instance_id: str) -> None:
        instance = self._scheduler.find_instance(instance_id)
        if (
            instance is not None
            and instance.state is InstanceState.DRAINING
            and not self._assignments.on_instance(instance_id)
            # Room reserved for a decode leg whose prefill runs elsewhere, and KV left for others to fetch, are in
            # flight as well.
            and not instance.account.reservations
        ):
            self._move(instance, InstanceState.DRAINED, instance.state_reason)

    # --- draining ---------------------------------------------------------------------------------

    def drain(self, instance_id: str, reason: str, *, by_operator: bool) -> Instance:
        """Nothing new for it; DRAINED once nothing is in flight.  Raises InstanceNotFound, InvalidTransition.

        An operator's drain outlives the executor; the executor's own ends with its session.
        """
        instance = self._scheduler.instance(instance_id)
        if instance.state in GONE:
            if not by_operator:
                return instance
            raise InvalidTransition(f"instance {instance_id}", instance.state.value, InstanceState.DRAINING.value)
        session = self._sessions.get(instance_id)
        if by_operator:
            self._cordoned.add(instance_id)
        elif session is not None:
            session.leaving = True
        if instance.state in (InstanceState.READY, InstanceState.SUSPECT, InstanceState.STALLED):
            self._move(instance, InstanceState.DRAINING, reason or "drained by an operator")
        if session is not None and by_operator:
            session.link.drain(resume=False)
        self.attempt_gone(instance_id)
        return instance

    def resume(self, instance_id: str) -> Instance:
        """Takes a drain back, also that of an instance that is away.  Raises InstanceNotFound, InvalidTransition."""
        instance = self._scheduler.instance(instance_id)
        drained = instance.state in DRAINS
        if not drained and instance.state is not InstanceState.READY and instance.state not in STARTING:
            if instance_id not in self._cordoned:
                raise InvalidTransition(f"instance {instance_id}", instance.state.value, InstanceState.READY.value)
            self._scheduler.recover_without_drain(instance_id)
        self._cordoned.discard(instance_id)
        session = self._sessions.get(instance_id)
        if session is not None:
            session.leaving = False
            session.link.drain(resume=True)
            if drained:
                self._move(instance, InstanceState.READY, "resumed by an operator")
                self._hold_back(session)
            self._wakeup.kick()
        return instance

    # --- time -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Leases, progress and forgetting; called a few times per lease."""
        now = self._clock.now()
        for session in list(self._sessions.values()):
            # A lease runs on receive time, less what this process itself was late to read.
            silence = now - session.last_heard_at - (self._pacer.lost_s - session.lag_then_s)
            if silence > self._settings.lease_s:
                self._lose(session, f"silent for {silence:.1f} s")
            elif silence > self._settings.lease_s / 2 and session.instance.state is InstanceState.READY:
                self._move(session.instance, InstanceState.SUSPECT, f"silent for {silence:.1f} s")
            elif self._halfway(session, now):
                self._lose(session, "its output stream did not come up")
        for verdict in self._scheduler.check_health(now):
            log.warning("instance %s is %s: %s", verdict.instance_id, verdict.state.value, verdict.reason)
            if verdict.state is InstanceState.STALLED:
                self._assignments.instance_stalled(verdict.instance_id, verdict.reason)
            elif (recovered := self._sessions.get(verdict.instance_id)) is not None:
                self._hold_back(recovered)
                self.attempt_gone(verdict.instance_id)
            self._wakeup.kick()
        for instance in self._scheduler.instances():
            self.attempt_gone(instance.instance_id)  # handoffs and leases give room back without a word
            gone = instance.instance_id not in self._sessions
            if gone and now - instance.state_since > self._settings.forget_after_s:
                self._scheduler.forget(instance.instance_id)
                self._probation.pop(instance.instance_id, None)
                if instance.instance_id in self._cordoned:
                    self._cordoned.discard(instance.instance_id)
                    log.warning("instance %s is forgotten, and that it was drained", instance.instance_id)

    # --- inside -----------------------------------------------------------------------------------

    def _kept(self, instance_id: str, registration: Registration) -> tuple[int, ...]:
        """Which held attempts live on.

        AttemptTable the executor does not hold were lost on the way.  What is fenced it drops without a further word,
        so that room is free as well.
        """
        held = {h.number for h in registration.held if h.epoch == self._epoch}
        keep = []
        for assignment in self._assignments.on_instance(instance_id):
            if assignment.number in held and not assignment.fenced:
                keep.append(assignment.number)
            else:
                self._assignments.never_arrived(assignment)
        return tuple(keep)

    def _forgive(self, spec: InstanceSpec) -> None:
        """A new engine is not to blame for what the one before did."""
        known = self._scheduler.find_instance(spec.instance_id)
        if known is not None and known.spec.engine_start_id != spec.engine_start_id:
            self.attempt_succeeded(spec.instance_id)

    def _hold_back(self, session: Session) -> None:
        """Nothing new for it before both streams are up, nor while it rests."""
        if session.instance.state not in (InstanceState.READY, InstanceState.DRAINING):
            return
        probation = self._probation.get(session.instance_id)
        if not session.up:
            self._move(session.instance, InstanceState.SUSPECT, "its streams are not both up yet")
        elif probation is not None and probation.timer is not None:
            self._move(session.instance, InstanceState.SUSPECT, probation.why)

    def _halfway(self, session: Session, now: float) -> bool:
        """Whether a session that took over attempts has been without their output for longer than a lease."""
        return (
            not session.outputs_up
            and session.grace is None
            and now - session.registered_at > self._settings.lease_s
            and bool(self._assignments.on_instance(session.instance_id))
        )

    def _broken(self, session: Session, reason: str) -> None:
        if not self._current(session):
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
        if self._current(session) and not session.up:
            self._lose(session, reason)

    def _recover(self, session: Session, reason: str) -> None:
        if session.grace is not None and session.up:
            session.grace.cancel()
            session.grace = None
        instance = session.instance
        if instance.state is not InstanceState.SUSPECT or instance.facts is None or not session.up:
            return
        probation = self._probation.get(session.instance_id)
        if probation is not None and probation.timer is not None:
            self._move(instance, InstanceState.SUSPECT, probation.why)  # that, not the streams, is why from now on
            return
        self._scheduler.recover(session.instance_id, reason, self._clock.now())
        self.attempt_gone(session.instance_id)
        self._wakeup.kick()

    def _resting(self, instance_id: str) -> bool:
        probation = self._probation.get(instance_id)
        return probation is not None and probation.timer is not None

    def _rested(self, instance_id: str) -> None:
        probation = self._probation.get(instance_id)
        if probation is not None:
            probation.timer = None
        session = self._sessions.get(instance_id)
        if session is not None:
            self._recover(session, "rested; must prove itself")

    def _lose(self, session: Session, reason: str) -> None:
        """The session is over and what ran in it goes on elsewhere."""
        instance = session.instance
        self._close(session, reason)
        log.warning("instance %s is gone: %s", instance.instance_id, reason)
        if instance.state is not InstanceState.FAILED:
            self._move(instance, InstanceState.LOST, reason)
        self._free(instance, instance.state_reason)

    def _free(self, instance: Instance, reason: str) -> None:
        """Its engine is gone, and with it everything it held."""
        self._assignments.instance_lost(instance.instance_id, reason)
        self._scheduler.lose(instance.instance_id, reason, self._clock.now())
        self._wakeup.kick()

    def _close(self, session: Session, reason: str) -> None:
        if session.grace is not None:
            session.grace.cancel()
            session.grace = None
        if self._sessions.get(session.instance_id) is session:
            del self._sessions[session.instance_id]
        self._by_id.pop(session.session_id, None)
        session.link.close(reason)

    def _current(self, session: Session) -> bool:
        """Whether this is still the instance's session: a late word of a replaced one changes nothing."""
        return self._sessions.get(session.instance_id) is session

    def _move(self, instance: Instance, state: InstanceState, reason: str) -> None:
        self._scheduler.transition(instance.instance_id, state, reason, self._clock.now())
