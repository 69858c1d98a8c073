"""Plays a trace against the scheduler and a modelled fleet, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_simulator.attempt_runner import AttemptRunner
from sage_simulator.automatic_roles import AutomaticRoles
from sage_simulator.autoscaler import Autoscaler
from sage_simulator.event_queue import EventQueue
from sage_simulator.executor_model import ExecutorModel
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.followed_policies import FollowedPolicies, FollowedPolicy
from sage_simulator.live_request import LiveRequest
from sage_simulator.modelled_fleet import ModelledFleet
from sage_simulator.outcome import End, Outcome
from sage_simulator.simulation_settings import SimulationError, SimulationSettings
from sage_simulator.timeline import Timeline, TimelinePoint
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.errors import LimitReached, NoInstance, Overloaded, QueueFull, TenantLimitReached
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.placement.split_planner import SplitCounts
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.policy import PolicySwitch
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.request import Request, RequestKey, Sampling
from scheduler_svc.domain.role_change import RoleChange
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.targets import effective_targets

_PROGRESS_S = 0.25  # between two looks at how long the outputs on an instance are; the service sees every token
_CHECK_S = 0.1  # between two checks of progress and of the policy, as in the service
_ORPHANED_S = 60.0  # that a request waits for a model without an instance, the service's default


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationResult:
    """What a simulation gave."""

    policy: str
    seed: int
    outcomes: tuple[Outcome, ...]  # in the order of the trace
    executors: tuple[ExecutorModel, ...]  # those that left, too
    decisions: int
    switches: tuple[PolicySwitch, ...]
    stalls: int  # instances that the scheduler took for stalled
    failovers: int  # requests that went on elsewhere after their instance was lost
    split_counts: SplitCounts
    timeline: tuple[TimelinePoint, ...]
    ended_at: float  # seconds
    role_changes: tuple[RoleChange, ...] = ()
    followed: tuple[FollowedPolicy, ...] = ()  # by model and in order


class Simulation:
    """Drives a ``Scheduler`` as the service does: the same calls, at the times at which the service makes them.

    Passes run when a request came, a first token, an end or a heartbeat arrived.  Deciding takes no time.  The fleet's
    instances are up before the first request, and the pairs of prefill and decode instances are proved.
    """

    def __init__(
        self,
        trace: Sequence[TracedRequest],
        fleet: Sequence[InstanceModel],
        settings: SimulationSettings,
        policies: PolicyCatalogue | None = None,
    ) -> None:
        """Bring the fleet up.  Raises SimulationError for an empty trace or fleet and for a wrong event.

        Raises UnknownPolicy.
        """
        if not trace or not fleet:
            raise SimulationError(f"a {'fleet of at least one instance' if trace else 'trace with requests'} is needed")
        self._settings = settings
        self.scheduler = Scheduler(settings.scheduler, policies or PolicyCatalogue())
        self._events = EventQueue()
        self._waiting: dict[RequestKey, LiveRequest] = {}
        self._outcomes: list[Outcome | None] = [None] * len(trace)
        self._left = len(trace)
        self._progress_due: dict[str, float] = {}  # by instance, seconds
        self._wake = False
        self._followed = FollowedPolicies(self.scheduler)
        self._decisions = 0
        self._stalls = 0
        self._unserved_since: dict[str, float] = {}
        self._timeline = Timeline(max(each.arrival_s for each in trace))
        models = sorted({each.model for each in trace})
        self._fleet = ModelledFleet(self.scheduler, self._events, settings, self, models=models)
        self._runner = AttemptRunner(
            self.scheduler, self._events, self._fleet.executors, end=self._end, requeued=self._requeued
        )
        self._fleet.start(fleet, self._runner, self._note)
        if settings.scheduler.scaling.enabled:
            Autoscaler(self.scheduler, self._events, self._fleet, fleet, settings).start()
        self._roles = AutomaticRoles(self.scheduler, self._events, self._fleet, self._note)
        if settings.scheduler.roles.automatic:
            self._roles.start()
        for index, traced in enumerate(trace):
            self._events.at(traced.arrival_s, self._arrive, index, traced)
        self._events.at(_CHECK_S, self._check)

    def run(self) -> SimulationResult:
        """Play everything until each request has ended, its capacity is free and what was sent has arrived."""
        while self._left or len(self._runner):
            if not self._events.play_next():
                raise AssertionError(f"nothing happens any more and {self._left} requests have not ended")
            if self._wake:
                self._wake = False
                self._pass()
        ended_at = self._events.now
        self._timeline.take(ended_at, self._fleet.executors.values(), 0)
        self._events.play_until(ended_at + self._settings.network_delay_s)
        return SimulationResult(
            policy=self.scheduler.policy,
            seed=self._settings.seed,
            outcomes=tuple(each for each in self._outcomes if each is not None),
            executors=tuple(self._fleet.executors.values()),
            decisions=self._decisions,
            switches=self.scheduler.switches,
            stalls=self._stalls,
            failovers=self._runner.failovers,
            split_counts=self.scheduler.split_counts(),
            role_changes=tuple(self._roles.changes),
            timeline=tuple(self._timeline.points),
            ended_at=ended_at,
            followed=self._followed.until(ended_at),
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
            prefix_hashes=traced.block_hashes,
            prefix_block_tokens=traced.block_tokens if traced.block_hashes else 0,
            wait_for_instance=settings.scheduler.scaling.enabled,
        )
        live = LiveRequest(index, traced, request)
        try:
            self.scheduler.admit(request, now)
        except (QueueFull, NoInstance, LimitReached, TenantLimitReached, Overloaded) as refusal:
            self._end(live, End.REFUSED, str(refusal))
            return
        self._followed.arrived(traced.model, now)
        self._waiting[request.key] = live
        for key, error in self.scheduler.take_displaced():
            self._give_up(self._waiting[key], End.REFUSED, str(error))
        self._events.at(now + deadline_s, self._give_up, live, End.EXPIRED)
        if traced.cancel_after_s is not None:
            self._events.at(now + traced.cancel_after_s, self._give_up, live, End.CANCELLED)
        self._wake = True

    def _pass(self) -> None:
        while True:
            for decision in self.scheduler.schedule(self._events.now):
                self._decisions += 1
                self._runner.begin(self._waiting.pop(decision.key), decision)
            for _, error in self.scheduler.take_policy_failures():
                raise error  # a comparison of policies is worth nothing with another policy in force
            if not self.scheduler.more:
                return

    def _requeued(self, live: LiveRequest) -> None:
        self._waiting[live.request.key] = live
        self._wake = True

    def _give_up(self, live: LiveRequest, end: End, why: str = "") -> None:
        """End a request that waits or runs, unless it has ended."""
        if live.outcome is not None:
            return
        if self._waiting.pop(live.request.key, None) is not None:
            self.scheduler.withdraw(live.request.key, self._events.now)
        else:
            self._runner.stop(live)
        self._end(live, end, why)
        self._wake = True

    def _end(self, live: LiveRequest, end: End, why: str) -> None:
        assert live.outcome is None, f"{live.request.key} ends once"
        live.outcome = self._outcomes[live.index] = Outcome(
            request=live.traced,
            end=end,
            ended_at=self._events.now,
            targets=effective_targets(live.request, self._settings.scheduler.default_targets),
            placed_at=live.placed_at,
            instance_id=live.instance_id,
            attempts=live.attempts,
            split=live.split,
            first_token_at=live.first_token_at,
            output_tokens=live.emitted if end is End.FINISHED else 0,
            why=why,
        )
        self._left -= 1

    # ------------------------------------------------------------------ what executors say

    def heartbeat(self, instance_id: str, load: LoadReport) -> None:
        """Pass a heartbeat on."""
        now = self._events.now
        self.scheduler.report(instance_id, load, now)
        if now >= self._progress_due.get(instance_id, 0.0):
            self._progress_due[instance_id] = now + _PROGRESS_S
            self._runner.note_progress(instance_id)
        self._wake = True

    def cache_changed(self, instance_id: str, report: CacheReport) -> None:
        """Pass on what changed in an engine's prefix cache."""
        self.scheduler.report_cache(instance_id, report)

    def output(self, first: Sequence[int], ended: Sequence[int]) -> None:
        """Note first tokens, and do what follows from ends."""
        self._runner.output(first, ended)
        self._wake = True

    def aborted(self, attempt_number: int, emitted_tokens: int) -> None:
        """Free the capacity of an attempt that was aborted."""
        self._runner.aborted(attempt_number, emitted_tokens)
        self._wake = True

    def _note(self) -> None:
        self._wake = True

    # ------------------------------------------------------------------ from time to time

    def _check(self) -> None:
        now = self._events.now
        self._stalls += sum(verdict.state.value == "stalled" for verdict in self.scheduler.check_health(now))
        self._fleet.finish_drains()
        self._fleet.prove_pairs()
        if self.scheduler.tick(now):
            self._wake = True
        self._followed.look(now)
        self._end_orphans(now)
        for key, error in self.scheduler.given_up(now):
            self._give_up(self._waiting[key], End.EXPIRED, str(error))
        if self._timeline.due(now):
            self._timeline.take(now, self._fleet.executors.values(), len(self._waiting))
        self._events.after(_CHECK_S, self._check)

    def _end_orphans(self, now: float) -> None:
        """End the requests whose model no instance has served for a while."""
        if not self._waiting or self._settings.scheduler.scaling.enabled:
            self._unserved_since.clear()
            return
        models = {live.request.model for live in self._waiting.values()} if self._fleet.shrank else set()
        unserved = {model for model in models if not self.scheduler.ready_instances(model)}
        self._unserved_since = {model: self._unserved_since.get(model, now) for model in unserved}
        late = {model for model, since in self._unserved_since.items() if now - since >= _ORPHANED_S}
        for live in [each for each in self._waiting.values() if each.request.model in late]:
            self._give_up(live, End.FAILED, f"no instance has been ready for {_ORPHANED_S:.0f} s")
