"""Plays a trace against the scheduler and a modelled fleet, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sage_simulator.event_queue import EventQueue
from sage_simulator.executor_model import ExecutorModel
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.heartbeats import HeartbeatTimes
from sage_simulator.outcome import End, Outcome
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.errors import LimitReached, NoInstance, Overloaded, QueueFull, TenantLimitReached
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.policy import PolicySwitch
from scheduler_svc.domain.request import Request, RequestKey, Sampling
from scheduler_svc.domain.scheduler import PROGRESS_TOKENS, Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.targets import effective_targets

_PROGRESS_S = 0.25  # between two looks at how long the outputs on an instance are; the service sees every token
_CHECK_S = 0.1  # between two checks of progress and of the policy, as in the service


class SimulationError(ValueError):
    """The simulation cannot be run as asked; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationSettings:
    """How the world around the scheduler behaves."""

    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    network_delay_s: float = 5e-4  # between scheduler and executor, one way
    heartbeats: HeartbeatTimes = field(default_factory=HeartbeatTimes)
    default_max_tokens: int = 2_048  # of requests that state none; longer outputs are cut there
    default_deadline_s: float = 3_600.0  # of requests that state none; it is no target

    def __post_init__(self) -> None:
        if self.scheduler.pd.enabled:
            raise SimulationError(
                f"pd.mode {self.scheduler.pd.mode.value}: the simulator runs whole requests only; use mode never"
            )
        if self.network_delay_s < 0:
            raise SimulationError(f"network_delay_s: {self.network_delay_s} is negative")
        if self.default_max_tokens < 1:
            raise SimulationError(f"default_max_tokens: {self.default_max_tokens} is not at least 1")
        if self.default_deadline_s <= 0:
            raise SimulationError(f"default_deadline_s: {self.default_deadline_s} is not a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationResult:
    """What a simulation gave."""

    policy: str
    outcomes: tuple[Outcome, ...]  # in the order of the trace
    executors: tuple[ExecutorModel, ...]
    decisions: int
    switches: tuple[PolicySwitch, ...]
    stalls: int  # instances that the scheduler took for stalled
    ended_at: float  # seconds


class _Live:
    """A request that has not ended, or whose attempt still holds capacity."""

    __slots__ = ("decision", "first_token_at", "index", "outcome", "placed_at", "request", "reserved_tokens", "traced")

    def __init__(self, index: int, traced: TracedRequest, request: Request) -> None:
        self.index = index
        self.traced = traced
        self.request = request
        self.decision: Decision | None = None
        self.placed_at: float | None = None
        self.reserved_tokens = 0  # output tokens that the reservation covers
        self.first_token_at: float | None = None
        self.outcome: Outcome | None = None

    @property
    def output_tokens(self) -> int:
        """Tokens that the request generates: its own number, at most what was asked for."""
        return min(self.traced.output_tokens, self.request.sampling.max_tokens)


class Simulation:
    """Drives a ``Scheduler`` as the service does: the same calls, at the times at which the service makes them.

    Passes run when a request came, a first token, an end or a heartbeat arrived.  Deciding takes no time.  All
    instances are up before the first request.
    """

    def __init__(
        self,
        trace: Sequence[TracedRequest],
        fleet: Sequence[InstanceModel],
        settings: SimulationSettings,
        policies: PolicyCatalogue | None = None,
    ) -> None:
        """Bring the fleet up.  Raises SimulationError for no instance or several models; UnknownPolicy."""
        models = sorted({each.model for each in trace})
        if len(models) != 1:
            raise SimulationError(f"a trace of one model is needed; this one has {', '.join(models) or 'no request'}")
        if not fleet:
            raise SimulationError("a fleet of at least one instance is needed")
        self._settings = settings
        self.scheduler = Scheduler(settings.scheduler, policies or PolicyCatalogue())
        self._events = EventQueue()
        self._waiting: dict[RequestKey, _Live] = {}
        self._running: dict[int, _Live] = {}  # by attempt number
        self._outcomes: list[Outcome | None] = [None] * len(trace)
        self._left = len(trace)
        self._progress_due: dict[str, float] = {}  # by instance
        self._wake = False
        self._decisions = 0
        self._stalls = 0
        self._executors: dict[str, ExecutorModel] = {}
        for number, instance in enumerate(fleet):
            self._add(f"i{number:03d}", models[0], instance, number / len(fleet))
        for index, traced in enumerate(trace):
            self._events.at(traced.arrival_s, self._arrive, index, traced)
        self._events.at(_CHECK_S, self._check)

    def _add(self, instance_id: str, model: str, instance: InstanceModel, phase: float) -> None:
        self.scheduler.register(
            InstanceSpec(
                instance_id=instance_id,
                model=model,
                role=instance.role,
                engine_start_id="1",
                price_per_hour=instance.price_per_hour,
            ),
            0.0,
        )
        self.scheduler.engine_ready(instance_id, instance.facts(), 0.0)
        self._progress_due[instance_id] = 0.0
        times = self._settings.heartbeats
        self._executors[instance_id] = ExecutorModel(
            instance_id,
            instance,
            self._events,
            self,
            heartbeats=times,
            delay_s=self._settings.network_delay_s,
            first_heartbeat_s=phase * times.interval_s,
        )

    def run(self) -> SimulationResult:
        """Play everything until each request has ended and its capacity is free."""
        while self._left or self._running:
            if not self._events.play_next():
                raise AssertionError(f"nothing happens any more and {self._left} requests have not ended")
            if self._wake:
                self._wake = False
                self._pass()
        return SimulationResult(
            policy=self.scheduler.policy,
            outcomes=tuple(each for each in self._outcomes if each is not None),
            executors=tuple(self._executors.values()),
            decisions=self._decisions,
            switches=self.scheduler.switches,
            stalls=self._stalls,
            ended_at=self._events.now,
        )

    # ------------------------------------------------------------------ requests

    def _arrive(self, index: int, traced: TracedRequest) -> None:
        now = self._events.now
        settings = self._settings
        deadline_s = traced.deadline_s if traced.deadline_s is not None else settings.default_deadline_s
        request = Request(
            key=RequestKey(tenant=traced.tenant, request_id=f"r{index}"),
            model=traced.model,
            prompt_token_ids=range(traced.prompt_tokens),
            sampling=Sampling(max_tokens=traced.max_tokens or settings.default_max_tokens),
            priority=traced.priority,
            arrived_at=now,
            deadline_at=now + deadline_s,
            deadline_stated=traced.deadline_s is not None,
            ttft_target_s=traced.ttft_target_s,
            tpot_target_s=traced.tpot_target_s,
            session=traced.session,
        )
        live = _Live(index, traced, request)
        try:
            self.scheduler.admit(request, now)
        except (QueueFull, NoInstance, LimitReached, TenantLimitReached, Overloaded) as refusal:
            self._end(live, End.REFUSED, why=str(refusal))
            return
        self._waiting[request.key] = live
        self._events.at(now + deadline_s, self._expire, live)
        self._wake = True

    def _pass(self) -> None:
        while True:
            for decision in self.scheduler.schedule(self._events.now):
                self._assign(decision)
            for _, error in self.scheduler.take_policy_failures():
                raise error  # a comparison of policies is worth nothing with another policy in force
            if not self.scheduler.more:
                return

    def _assign(self, decision: Decision) -> None:
        live = self._waiting.pop(decision.key)
        live.decision = decision
        live.placed_at = self._events.now
        live.reserved_tokens = decision.prediction.output_tokens
        self._running[decision.attempt_number] = live
        self._decisions += 1
        assign_number = self._executors[decision.instance_id].assign(
            decision.attempt_number,
            live.traced,
            output_tokens=live.output_tokens,
            priority=decision.engine_priority,
        )
        self.scheduler.assigned(decision.attempt_number, assign_number)

    def _expire(self, live: _Live) -> None:
        if live.outcome is not None:
            return
        if live.decision is None:
            del self._waiting[live.request.key]
            self.scheduler.withdraw(live.request.key, self._events.now)
        else:  # its capacity stays taken until the executor says that it is free
            self._executors[live.decision.instance_id].abort(live.decision.attempt_number)
        self._end(live, End.EXPIRED)

    def _end(self, live: _Live, end: End, *, output_tokens: int = 0, why: str = "") -> None:
        assert live.outcome is None, f"{live.request.key} ends once"
        live.outcome = self._outcomes[live.index] = Outcome(
            request=live.traced,
            end=end,
            ended_at=self._events.now,
            targets=effective_targets(live.request, self._settings.scheduler.default_targets),
            placed_at=live.placed_at,
            instance_id=live.decision.instance_id if live.decision is not None else "",
            first_token_at=live.first_token_at,
            output_tokens=output_tokens,
            why=why,
        )
        self._left -= 1

    # ------------------------------------------------------------------ what executors say

    def heartbeat(self, instance_id: str, load: LoadReport) -> None:
        """Pass a heartbeat on."""
        now = self._events.now
        self.scheduler.report(instance_id, load, now)
        if now >= self._progress_due[instance_id]:
            self._progress_due[instance_id] = now + _PROGRESS_S
            self._note_progress(instance_id)
        self._wake = True

    def _note_progress(self, instance_id: str) -> None:
        """Have the reservations of outputs that are longer than predicted grow."""
        for attempt_number, tokens in self._executors[instance_id].engine.emitted():
            live = self._running[attempt_number]
            if tokens > live.reserved_tokens:
                self.scheduler.progress(attempt_number, tokens)
                live.reserved_tokens = tokens + PROGRESS_TOKENS

    def output(self, first: Sequence[int], ended: Sequence[int]) -> None:
        """Note first tokens, and end what finished."""
        now = self._events.now
        for attempt_number in first:
            self._running[attempt_number].first_token_at = now
            self.scheduler.first_token(attempt_number, now)
        for attempt_number in ended:
            live = self._running.pop(attempt_number)
            self.scheduler.release(attempt_number, now, output_tokens=live.output_tokens, finished=True)
            if live.outcome is None:  # otherwise it finished while its abort was on the way
                self._end(live, End.FINISHED, output_tokens=live.output_tokens)
        self._wake = True

    def aborted(self, attempt_number: int, emitted_tokens: int) -> None:
        """Free the capacity of an attempt that was aborted."""
        del self._running[attempt_number]
        self.scheduler.release(attempt_number, self._events.now, output_tokens=emitted_tokens or None, finished=False)
        self._wake = True

    def _check(self) -> None:
        now = self._events.now
        self._stalls += sum(verdict.state.value == "stalled" for verdict in self.scheduler.check_health(now))
        if self.scheduler.tick(now):
            self._wake = True
        self._events.after(_CHECK_S, self._check)
