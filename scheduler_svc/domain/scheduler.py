"""The entrance of the domain: who goes next, where, and why, as one synchronous object.

It has no clock and no tasks: ``now`` (seconds on the scheduler's monotonic clock, never going back) comes with every
call, and nothing happens between calls.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace

from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.device_groups.member import ModelDemand
from scheduler_svc.domain.door import Door
from scheduler_svc.domain.engine_facts import EngineFacts, ModelIdentity, RunTimeAdapters
from scheduler_svc.domain.errors import NoInstance, Overloaded, PolicyFailed, QueueFull, SchedulerError
from scheduler_svc.domain.expected_wait import expected_wait, expected_wait_of
from scheduler_svc.domain.fleet.engine_reports import EngineReports
from scheduler_svc.domain.fleet.health import HealthVerdict
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.fleet.registry import Registry
from scheduler_svc.domain.fleet.running_attempts import PROGRESS_TOKENS, RunningAttempts
from scheduler_svc.domain.give_ups import GiveUps
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import DRAINS, InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.orphan import Orphan, orphans_of
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.pairs import Pair
from scheduler_svc.domain.pd.settings import PdSettings
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.placement.shadow_policy import ShadowPolicy, ShadowReport
from scheduler_svc.domain.placement.split_planner import SplitCounts, SplitPlanner
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.fleet_signals import FleetSignals
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.policies.in_force import PolicyInForce
from scheduler_svc.domain.policies.policy import PolicySwitch
from scheduler_svc.domain.prediction.output_length import Coverage, OutputLengths
from scheduler_svc.domain.prediction.predictor import Accuracy
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes
from scheduler_svc.domain.queue import ModelQueue, QueueView
from scheduler_svc.domain.request import Request, RequestKey
from scheduler_svc.domain.roles.role_balancer import RoleBalancer
from scheduler_svc.domain.roles.role_change import RoleChange
from scheduler_svc.domain.roles.side import Side
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.scaling.scaler import Scaler
from scheduler_svc.domain.scheduling_pass import SchedulingPass
from scheduler_svc.domain.servability import why_refused
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.shares.group import Charge
from scheduler_svc.domain.shares.tenant_use import TenantUse, TenantUses
from scheduler_svc.domain.waiting_request import WaitingRequest
from scheduler_svc.domain.waiting_view import WaitingView, why_not_at_once, why_waiting

__all__ = ["PROGRESS_TOKENS", "Scheduler", "SchedulerSettings"]


#: Serves requests, or did a moment ago.
_WORKS = frozenset({InstanceState.READY, InstanceState.SUSPECT, InstanceState.STALLED})


class Scheduler:
    """Takes instances and requests in and gives decisions out.  The entrance of the domain.

    One per scheduler service.  Bounds are in ``SchedulerSettings``; each method says what happens at its bound.
    """

    def __init__(self, settings: SchedulerSettings, policies: PolicyCatalogue) -> None:
        """Start with the policy that the settings name.  Raises UnknownPolicy."""
        self.settings = settings
        self.more = False  # the last pass stopped at max_decisions_per_pass
        self._policies = policies
        self._policy = PolicyInForce(policies, settings)
        self._registry = Registry(max_instances=settings.max_instances, max_models=settings.max_models)
        self._ledger = Ledger()
        self._prefixes = CachedPrefixes(settings.prefix)
        self._reports = EngineReports(self._registry, self._ledger, self._prefixes, settings)
        self._outputs = OutputLengths(quantile=settings.output_quantile, min_samples=settings.output_min_samples)
        self._attempts = RunningAttempts(self._registry, self._ledger, self._outputs, self._prefixes)
        self._signals = FleetSignals(settings.default_targets)
        self._splits = SplitPlanner(settings.pd)
        self._placer = Placer(
            self._ledger,
            self._outputs,
            self._signals,
            self._splits,
            self._prefixes,
            automatic_roles=settings.roles.automatic,
        )
        self._scaler = Scaler(settings.scaling, self._registry, self._signals.targets_of)
        self._roles = RoleBalancer(settings.roles, self._registry)
        self._pass = SchedulingPass(self._placer, backfill_depth=settings.backfill_depth)
        self._shadow_name = ""  # in the catalogue; empty: none
        self._queued: dict[RequestKey, ModelQueue] = {}
        self._uses = TenantUses(settings.shares)
        self._door = Door(self._uses, self._queued.pop, refuses_hopeless=settings.refuse_hopeless)
        self._give_ups = GiveUps(settings, self._prefixes)
        self._charges: dict[int, Charge] = {}  # by attempt; of tenants that share with others
        self._metered: dict[int, tuple[TenantUse, int]] = {}  # by attempt; of tenants with limits: predicted tokens
        self._passes = 0
        self._failures: list[tuple[RequestKey, PolicyFailed]] = []  # not taken yet; at most one for each pass

    @property
    def tenants_counted(self) -> int:
        """How many tenants have a counter of what they use."""
        return len(self._uses)

    # ------------------------------------------------------------------ instances

    def register(self, spec: InstanceSpec, now: float) -> Instance:
        """Register an instance, or update one that is registered (``Registry.register``).  Raises LimitReached.

        If a new engine replaces an old one, call ``lose`` first.
        """
        return self._registry.register(spec, now)

    def forget(self, instance_id: str) -> None:
        """Remove an instance that is gone.  Raises InstanceNotFound."""
        self._registry.forget(instance_id)
        self._prefixes.forget(instance_id)

    def instance(self, instance_id: str) -> Instance:
        """Return the instance of this id.  Raises InstanceNotFound."""
        return self._registry.get(instance_id)

    def find_instance(self, instance_id: str) -> Instance | None:
        """Return the instance of this id; None if there is none."""
        return self._registry.find(instance_id)

    def instances(self, model: str | None = None) -> list[Instance]:
        """Return all instances, or those of one model, sorted by id."""
        if model is None:
            return self._registry.all()
        pool = self._registry.find_pool(model)
        return pool.instances() if pool is not None else []

    def ready_instances(self, model: str) -> list[Instance]:
        """Return the READY instances of a model, sorted by id."""
        return [i for i in self.instances(model) if i.state is InstanceState.READY]

    def note_wake(self, instance_id: str, wake_s: float) -> None:
        """Take how many seconds waking an instance took the last time.  Raises InstanceNotFound."""
        self._registry.get(instance_id).wake_s = wake_s

    def note_start(self, instance_id: str, now: float) -> None:
        """Note that an engine starts only now: its executor had to wait for a place.  Raises InstanceNotFound."""
        instance = self._registry.get(instance_id)
        instance.start_began_at, instance.has_place = now, True

    def note_on_demand(self, instance_id: str, on_demand: bool) -> None:
        """Note whether an instance is started or woken when requests wait for its model, until its engine is gone.

        Raises InstanceNotFound.
        """
        self._registry.get(instance_id).on_demand = on_demand

    def demand(self, model: str, now: float) -> ModelDemand:
        """Return the requests of a model that wait; those that no READY instance can serve count only without one."""
        pool = self._registry.find_pool(model)
        if pool is None or pool.queue is None or (since := pool.queue.waits_since) is None:
            return ModelDemand()
        waiting = pool.queue.placeable if pool.accounts else len(pool.queue)
        return ModelDemand(waiting=waiting, waited_s=now - since)

    def start_s(self, model: str) -> float | None:
        """Return the mean seconds of a model's recent starts; None before the first."""
        pool = self._registry.find_pool(model)
        return pool.starts.mean_s if pool is not None else None

    def wanted_asleep(self) -> list[list[Instance]]:
        """Return by model the SLEEPING instances, where requests wait and no other instance may serve them soon."""
        found = ([i for i in pool.instances() if i.state is InstanceState.SLEEPING] for pool in self._unserved())
        return [each for each in found if each]

    def _unserved(self) -> Iterator[Pool]:
        """Yield the models that requests wait for, and of which no instance works, starts or may be back soon."""
        for pool in self._registry.pools():
            hoped_for = pool.hopeful or any(i.state in _WORKS for i in pool.instances())
            if pool.queue is not None and len(pool.queue) and not hoped_for:
                yield pool

    def set_role(self, instance_id: str, role: InstanceRole) -> InstanceRole:
        """Change what an instance is eligible for; nothing needs draining.  Returns the role before.

        Raises InstanceNotFound; InvalidRequest if a generating engine would have to embed, or the reverse.
        """
        return self._registry.set_role(instance_id, role)

    def transition(self, instance_id: str, state: InstanceState, reason: str, now: float) -> Instance:
        """Change an instance's state; the same state again only changes the reason.

        With SLEEPING, its prefix cache counts as empty.  Raises InstanceNotFound, InvalidTransition
        (``instance_state.TRANSITIONS``).
        """
        instance = self._registry.transition(instance_id, state, reason, now)
        if state is InstanceState.SLEEPING:
            self._prefixes.emptied(instance_id)
        return instance

    def recover(self, instance_id: str, reason: str, now: float) -> Instance:
        """Take SUSPECT or STALLED back to what it was before; in any other state, nothing happens.

        Raises InstanceNotFound.
        """
        return self._registry.recover(instance_id, reason, now)

    def recover_without_drain(self, instance_id: str) -> None:
        """Let an instance that drained before it became SUSPECT or STALLED recover to READY instead.

        Raises InstanceNotFound.
        """
        instance = self._registry.get(instance_id)
        if instance.recovers_to in DRAINS:
            instance.recovers_to = InstanceState.READY

    def engine_ready(self, instance_id: str, facts: EngineFacts, now: float) -> Instance:
        """Take the facts of an engine that is up and produced tokens.

        A new ``engine_start_id`` starts the predictor over.  An instance that is draining stays so, and one that is
        STALLED has to do iterations first.  Raises InstanceNotFound; InvalidTransition for a LOST instance, which has
        to register first.
        """
        instance = self._reports.engine_ready(instance_id, facts, now)
        self.renew_pairs()  # even while splitting is off: handoffs of the old engine prove nothing about the new one
        return instance

    def set_adapters(self, instance_id: str, found: RunTimeAdapters) -> bool:
        """Take the run-time adapters of an instance; return whether they changed.  Raises InstanceNotFound.

        Nothing changes while its engine is not known.
        """
        return self._registry.set_adapters(instance_id, found)

    def report(self, instance_id: str, load: LoadReport, now: float) -> None:
        """Take a heartbeat.  Raises InstanceNotFound."""
        self._reports.report(instance_id, load, now)

    def report_cache(self, instance_id: str, report: CacheReport) -> None:
        """Take what an engine says of its prefix cache.  Raises InstanceNotFound."""
        self._registry.get(instance_id)
        self._prefixes.report(instance_id, report)

    def lose(self, instance_id: str, reason: str, now: float) -> list[int]:
        """Free all reservations on an instance.  Returns their attempt numbers, oldest first.

        The instance stays in its state (``transition`` changes it); ``reason`` becomes its state's reason.

        Raises InstanceNotFound.
        """
        lost = self._reports.lose(instance_id, reason, now)
        for attempt_number in lost:
            self._settle(attempt_number, 0, now)
        return lost

    def check_health(self, now: float) -> list[HealthVerdict]:
        """Judge every instance by its progress and change the states that need it.  Returns the changes."""
        return self._reports.check_health(now)

    # ------------------------------------------------------------------ requests

    def admit(self, request: Request, now: float, *, accepted_before: bool = False) -> str:
        """Let a new request wait in its model's queue, or refuse it.

        ``accepted_before``: by an earlier scheduler, so that the limits at the door do not count.

        Returns what the request has to wait for, in words; empty if some instance can take it at once.

        Raises NoInstance (no instance can serve the request now; with ``wait_for_instance``: none ever can), QueueFull
        (with the expected wait), TenantLimitReached, Overloaded (its deadline is over before it is predicted to be
        placed), LimitReached (models), ValueError if the request waits already.  A request that another one made room
        for is in ``take_displaced``.
        """
        pool = self._registry.find_pool(request.model)
        refusal = why_refused(request, pool)
        if refusal is not None:
            raise NoInstance(request.model, refusal)
        ahead = why_not_at_once(pool)
        self.enqueue(request, now, accepted_before=accepted_before)
        return ahead

    def enqueue(
        self,
        request: Request,
        now: float,
        *,
        emitted_tokens: int = 0,
        excluded: frozenset[str] = frozenset(),
        resumed: bool = False,
        accepted_before: bool = False,
        whole: bool = False,
        alone: bool = False,
        identity: ModelIdentity | None = None,
    ) -> None:
        """Let a request wait, even if no instance can serve it; ``admit`` checks that first.

        ``emitted_tokens``: output tokens that earlier attempts delivered.  ``whole``: do not split the request.
        ``alone``: place it on an instance that runs nothing else (``share_instance`` ends that).  ``identity``: of the
        model that began its output, which has to continue it.
        A resumed request is let in even if the queue is full: it was accepted before, and there are at most as many of
        them as the fleet ran.  So is one with ``accepted_before``: an earlier scheduler's queue had room for it.  Of
        several choices the first finds room for all.
        Raises QueueFull, LimitReached (models), ValueError if the request waits already,
        PolicyFailed if the policy's code fails: then fifo is in force from now on.
        """
        pool = self._registry.pool(request.model)
        queue = pool.queue if pool.queue is not None else self._open_queue(pool, now)
        if request.key in self._queued:
            raise ValueError(f"request {request.key} waits already")
        if not (resumed or accepted_before or request.key.choice):
            self._check_door(request, pool, queue, now)
        waiting = WaitingRequest(
            request,
            enqueued_at=now,
            emitted_tokens=emitted_tokens,
            excluded=excluded,
            resumed=resumed,
            output_tokens=self._outputs.predict(request.model, request.sampling.max_tokens, emitted_tokens),
            pace=pool.pace(now),
            whole=whole,
            alone=alone,
            identity=identity,
        )
        try:
            queue.add(waiting, now)
        except Exception as error:
            raise self._policy_failed(error, now) from error
        self._queued[request.key] = queue
        self._give_ups.add(waiting, len(queue))
        expected = self._outputs.mean(request.model, request.sampling.max_tokens, emitted_tokens)
        pool.load.add(waiting.prompt_tokens, expected, now)
        if not resumed:
            pool.drain.arrived(request.priority, waiting.key, now)
            self._signals.arrived(request)
        if self._policy.begins(request.model):
            self._reconsider(pool, now)

    def _check_door(self, request: Request, pool: Pool, queue: ModelQueue, now: float) -> None:
        """Have the door refuse a request or find room for it, and count what is turned away.

        Raises TenantLimitReached, Overloaded, QueueFull.
        """
        try:
            self._door.check(request, pool, queue, now)
        except (Overloaded, QueueFull):
            pool.trouble.turned_away(request.choices, now)
            raise

    def _open_queue(self, pool: Pool, now: float) -> ModelQueue:
        """Make the queue of a model.  Raises PolicyFailed."""
        try:
            ordering = self._policy.acting(pool.model).ordering
        except Exception as error:  # the policy's code makes a governor for each model
            raise self._policy_failed(error, now) from error
        limit = self.settings.queue_limit_per_model
        queue = pool.queue = ModelQueue(pool.model, ordering, limit=limit, shares=self.settings.shares, uses=self._uses)
        return queue

    def take_displaced(self) -> list[tuple[RequestKey, Overloaded]]:
        """Return the requests that left a full queue since the last call, to make room for others."""
        return self._door.take_displaced()

    def given_up(self, now: float) -> list[tuple[RequestKey, SchedulerError]]:
        """Return the waiting requests to end now, with their errors.

        They can no longer meet a stated deadline, or waited as long as their class may.  Looks at ``SWEEP_LIMIT``
        requests of each model at most.
        """
        given_up = self._give_ups.due(self._registry.pools(), now)
        for key, _ in given_up:
            queue = self._queued.get(key)
            waiting = queue.find(key) if queue is not None else None
            if queue is not None and waiting is not None and not _is_over(waiting, now):
                self._note_turned_away(waiting, queue, now)
        return given_up

    def _note_turned_away(self, waiting: WaitingRequest, queue: ModelQueue, now: float) -> None:
        """Count a request that ends without a placement, unless it waited for its tenant's others to end."""
        if queue.at_running_limit(waiting) is None:
            self._registry.pool(queue.model).trouble.turned_away(1, now)

    def adopt(self, request: Request, instance_id: str, emitted_tokens: int, policy: str, now: float) -> Decision:
        """Reserve capacity for a request that an earlier scheduler placed on an instance, where it runs.

        ``emitted_tokens``: output tokens so far.  ``policy``: that placed it.  Raises InstanceNotFound, PolicyFailed,
        ValueError if the instance's engine is not known yet.
        """
        instance = self._registry.get(instance_id)
        pool = self._registry.pool_of(instance)
        if instance.facts is None:
            raise ValueError(f"the engine of {instance_id} is not known yet")
        waiting = WaitingRequest(
            request,
            enqueued_at=now,
            emitted_tokens=emitted_tokens,
            excluded=frozenset(),
            resumed=True,
            output_tokens=0,
            pace=pool.pace(now),
        )
        try:
            acting = self._policy.acting(pool.model)
        except Exception as error:  # the policy's code makes a governor for each model
            raise self._policy_failed(error, now) from error
        decision = self._placer.adopt(waiting, instance.account, policy, PassContext(pool, acting, now))
        if (use := self._uses.of(request.key.tenant, now)) is not None:
            use.adopted()
            self._metered[decision.attempt_number] = use, 0
        return decision

    def withdraw(self, key: RequestKey, now: float) -> bool:
        """Take a request out of its queue.  False if it does not wait."""
        queue = self._queued.pop(key, None)
        waiting = queue.withdraw(key, now) if queue is not None else None
        if queue is not None and waiting is not None and _is_over(waiting, now):
            self._note_turned_away(waiting, queue, now)
        return waiting is not None

    def schedule(self, now: float) -> list[Decision]:
        """Place all requests that can be placed, at most ``max_decisions_per_pass``; then ``more`` is True.

        A model is looked at only if its queue or its instances changed since the last pass.  Models take turns to be
        first.  If the policy's code fails, fifo is in force from then on; see ``take_policy_failures``.
        """
        self.tick(now)
        self.more = False
        decisions: list[Decision] = []
        for pool in self._pools_in_turn():
            left = self.settings.max_decisions_per_pass - len(decisions)
            decisions += self._schedule_model(pool, now, left)
            if len(decisions) >= self.settings.max_decisions_per_pass:
                pool.changed = self.more = True
                break
        return decisions

    def _pools_in_turn(self) -> list[Pool]:
        pools = [p for p in self._registry.pools() if p.queue and (p.changed or p.queue.changed)]
        self._passes += 1
        if len(pools) < 2:
            return pools
        first = self._passes % len(pools)
        return pools[first:] + pools[:first]

    def _schedule_model(self, pool: Pool, now: float, budget: int) -> list[Decision]:
        queue = pool.queue
        assert queue is not None, "only pools with a queue are scheduled"
        pool.changed = queue.changed = False
        context = PassContext(pool, self._policy.acting(pool.model), now)
        result = self._pass.run(queue, context, budget=budget)
        pool.drain.passed(len(result.decisions), queue.placeable, now)
        for decision in result.decisions:
            del self._queued[decision.key]
            if self._uses.counts and (use := self._uses.find(decision.key.tenant)) is not None:
                self._metered[decision.attempt_number] = use, decision.prediction.output_tokens
        self._charges.update(result.charges)
        if result.failed is not None:
            waiting, error = result.failed
            del self._queued[waiting.request.key]
            failed = self._policy_failed(error, now)
            failed.__cause__ = error
            self._failures.append((waiting.request.key, failed))
        if result.more or result.failed is not None:
            pool.changed = self.more = True
        return result.decisions

    def take_policy_failures(self) -> list[tuple[RequestKey, PolicyFailed]]:
        """Return the requests that left their queue since the last call, because the policy's code failed for them."""
        failures, self._failures = self._failures, []
        return failures

    def _policy_failed(self, error: Exception, now: float) -> PolicyFailed:
        """Put fifo in force, because the policy's code raised an error, and return the error for its request."""
        failed = PolicyFailed(self._policy.name)
        if self._policy.fall_back(error, now) is not None:
            self._reorder_all(now)
        return failed

    def share_instance(self, attempt_number: int) -> None:
        """Open the instance of a quarantined request's attempt to other requests again."""
        reservation = self._ledger.find(attempt_number)
        instance = self._registry.find(reservation.instance_id) if reservation is not None else None
        if instance is not None:
            pool = self._registry.pool_of(instance)
            if pool.isolation.account is instance.account:
                pool.isolation.open()
            pool.changed = True

    def assigned(self, attempt_number: int, assign_number: int) -> bool:
        """Note the number of an attempt's Assign in its session; False if the attempt is over.

        Heartbeats refer to it: ``LoadReport.last_assign`` says which attempts their figures include.
        """
        return self._attempts.assigned(attempt_number, assign_number)

    def first_token(self, attempt_number: int, now: float) -> None:
        """Note an attempt's first token.  Later calls change nothing."""
        self._attempts.first_token(attempt_number, now)

    def progress(self, attempt_number: int, tokens: int) -> None:
        """Note that a request has ``tokens`` output tokens now, over all attempts.

        A reservation that turns out too small grows, and covers the next ``PROGRESS_TOKENS`` as well: so it is enough
        to call this when the request has more tokens than were reserved, and every so many tokens from then on.
        """
        self._attempts.progress(attempt_number, tokens)
        if (charge := self._charges.get(attempt_number)) is not None:
            charge.correct(tokens)

    def release(self, attempt_number: int, now: float, *, output_tokens: int | None, finished: bool) -> bool:
        """Free the capacity of an attempt.  False if it was released before.

        ``output_tokens``: output tokens of the request over all attempts; None if unknown.  ``finished``: whether the
        request ended by itself; only then are its length and times learned from.
        """
        reservation = self._ledger.find(attempt_number)
        emitted = reservation.emitted_tokens if reservation is not None else 0
        self._settle(attempt_number, max(0, (output_tokens or 0) - emitted), now)
        return self._attempts.release(attempt_number, now, output_tokens=output_tokens, finished=finished)

    def _settle(self, attempt_number: int, own_tokens: int, now: float) -> None:
        """Correct what a tenant was charged for an attempt that is over and generated so many tokens."""
        charge = self._charges.pop(attempt_number, None)
        if charge is not None:
            charge.settle(own_tokens)
        use, predicted = self._metered.pop(attempt_number, (None, 0))
        if use is not None:
            use.ended()
            use.take(own_tokens - predicted, now)
            self._uses.rest(use, now)

    def park(self, attempt_number: int, now: float) -> bool:
        """Note that a prefill leg's sequence is over: its slot is free, its KV tokens stay taken until ``release``.

        False if the attempt is over.
        """
        return self._attempts.park(attempt_number, now)

    # ------------------------------------------------------------------ prefill and decode

    @property
    def pd_settings(self) -> PdSettings:
        """When requests are split into a prefill leg and a decode leg."""
        return self._splits.settings

    def set_pd(self, settings: PdSettings) -> None:
        """Change when requests are split from now on, and form the pairs of the engines that run now."""
        self._splits.settings = settings
        self.renew_pairs()

    def renew_pairs(self) -> None:
        """Form the pairs of the engines that run now.

        An instance that is not READY for a while keeps its pairs, because its engine still runs.
        """
        self._splits.renew(self._registry)

    def balance_roles(self, pinned: Container[str], now: float) -> list[RoleChange]:
        """Change the roles of instances as the pressures of prefill and decode ask for; return what changed.

        Call it every ``RoleSettings.interval_s``.  Nothing changes while splitting is off.  ``pinned``: ids of
        instances that an operator gave their role.
        """
        if not self.settings.roles.automatic or not self.pd_settings.enabled:
            self._roles.rest()
            return []
        changes = self._roles.look(pinned, now)
        for change in changes:
            self._registry.set_role(change.instance_id, change.role, change)
        if changes:
            self.renew_pairs()
        return changes

    def keep_role(self, change: RoleChange) -> None:
        """Give an instance the role that an earlier scheduler gave it by itself.  Raises InstanceNotFound."""
        self._registry.set_role(change.instance_id, change.role, change)

    @property
    def sides(self) -> Mapping[str, tuple[Side, Side]]:
        """The prefill and the decode side of each model as of the last call of ``balance_roles``."""
        return self._roles.sides

    @property
    def role_changes(self) -> Sequence[RoleChange]:
        """The latest changes of roles that the scheduler decided by itself, newest first."""
        return self._roles.recent

    def pairs(self) -> list[Pair]:
        """Return the pairs of a prefill and a decode instance.  While splitting is off they may be out of date."""
        return list(self._splits.pairs)

    def pairs_due(self, now: float) -> list[Pair]:
        """Return the pairs to warm up now."""
        return self._splits.pairs.due(now)

    def pair_between(self, prefill_instance: str, decode_instance: str) -> Pair | None:
        """Return the pair of these two instances; None if they form none."""
        return self._splits.pairs.find(prefill_instance, decode_instance)

    def warm_up_started(self, pair: Pair) -> None:
        """Note that a warm-up of the pair is under way."""
        self._splits.pairs.warming(pair)

    def warm_up_failed(self, pair: Pair, reason: str, now: float) -> None:
        """Leave the pair unused until a later warm-up works; report that one with ``handed_over``."""
        self._splits.pairs.failed(pair, reason, now)

    def handed_over(self, pair: Pair | None, handoff_s: float) -> None:
        """Note a handoff that worked, in seconds from prefill's end to decode's first token.  The pair is usable."""
        if pair is not None:
            self._splits.pairs.worked(pair, handoff_s)

    def handoff_failed(self, pair: Pair | None, cause: Fallback, reason: str, now: float) -> None:
        """Count a failed handoff of a request; the pair is not used until a warm-up works.

        ``pair``: None where neither instance is to blame.
        """
        self._splits.count_fallback(cause)
        if pair is not None:
            self._splits.pairs.failed(pair, reason, now)

    def split_counts(self) -> SplitCounts:
        """Return counts since the start: requests that were split, and fallbacks by cause."""
        return self._splits.counts()

    def pd_conditions(self) -> list[str]:
        """Say what keeps splitting from working; empty when all is well or splitting is off."""
        return [condition for pool in self._registry.pools() for condition in self._splits.conditions(pool)]

    def unreserved_attempt(self) -> int:
        """Return the number of an attempt without a reservation: one of a warm-up."""
        return self._ledger.next_number()

    # ------------------------------------------------------------------ models

    def models(self) -> list[str]:
        """Return the names of the known models: with an instance, with waiting requests, or not retired yet."""
        return [pool.model for pool in self._registry.pools()]

    def models_with_instances(self) -> list[str]:
        """Return the names of the models that some instance serves, whatever its state."""
        return [pool.model for pool in self._registry.pools() if len(pool)]

    def knows_model(self, model: str) -> bool:
        """Whether ``models`` holds this name."""
        return self._registry.find_pool(model) is not None

    def kv_block_sizes(self, model: str) -> tuple[int, ...]:
        """Return the tokens of a KV block of the model's engines, each size once; empty where none is known."""
        pool = self._registry.find_pool(model)
        return pool.kv_block_sizes if pool is not None else ()

    def instance_states(self, model: str) -> str:
        """Say how many instances of the model are in which state: "2 ready, 1 downloading"."""
        pool = self._registry.find_pool(model)
        return pool.states() if pool is not None else "none registered"

    def served_facts(self, model: str) -> tuple[EngineFacts, ...]:
        """Return the different facts of the model's live instances that generate (``Pool.served_facts``)."""
        pool = self._registry.find_pool(model)
        return pool.served_facts if pool is not None else ()

    def model_conditions(self) -> list[str]:
        """Say which models have instances that run different models under one name; empty when all is well."""
        found = (pool.disagreement for pool in self._registry.pools())
        return [condition for condition in found if condition]

    def orphans(self, now: float, timeout_s: float) -> list[Orphan]:
        """Return the waiting requests that no READY instance could serve for ``timeout_s``, except those that wait.

        The time counts for each request.  It is over only once no engine of the model starts for the first time, or
        again after it had been READY: one that fails to start again and again gives no hope.
        """
        return [o for pool in self._registry.pools() if pool.queue for o in orphans_of(pool, now, timeout_s)]

    def retire_models(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Forget the models without instances and waiting requests, except those of ``keep``."""
        self._registry.retire_models(keep=keep)

    # ------------------------------------------------------------------ number of instances

    def scale(self, waiting_elsewhere: Mapping[str, int], now: float) -> Sequence[DesiredInstances]:
        """Work out anew how many instances each model needs; call it every ``ScalingSettings.interval_s``.

        ``waiting_elsewhere``: requests by model that wait for an instance and are in no queue yet.
        """
        return self._scaler.look(waiting_elsewhere, now)

    @property
    def desired_instances(self) -> Sequence[DesiredInstances]:
        """The desired instances as of the last call of ``scale``, sorted by model and role; empty before it."""
        return self._scaler.desired

    # ------------------------------------------------------------------ views

    def waiting(self, model: str) -> int:
        """Count the requests of a model that wait."""
        pool = self._registry.find_pool(model)
        return len(pool.queue) if pool is not None and pool.queue is not None else 0

    def queues(self) -> dict[str, QueueView]:
        """Return a view of each queue, by model; models whose queue was never used are left out."""
        return {p.model: p.queue.view() for p in self._registry.pools() if p.queue is not None}

    def live_attempts(self) -> int:
        """Count the attempts that hold capacity."""
        return len(self._ledger)

    def expected_wait(self, model: str, now: float) -> float:
        """Predict seconds until a request that comes now is placed, from the rate at which the queue drains.

        The prediction assumes that all requests run whole; split ones may be placed sooner.
        """
        return expected_wait(self._registry.find_pool(model), now)

    def expected_wait_of(self, request: Request, now: float) -> float:
        """Predict seconds until this request is placed, new or waiting as the youngest, by class and tenant."""
        return expected_wait_of(self._registry.find_pool(request.model), request, now)

    def position(self, key: RequestKey, now: float) -> WaitingView | None:
        """Say where a request stands in its queue and why it waits; None if it does not wait."""
        queue = self._queued.get(key)
        waiting = queue.find(key) if queue is not None else None
        if queue is None or waiting is None:
            return None
        pool = self._registry.pool(queue.model)
        policy = self._policy.acting(pool.model)
        demand = self._placer.demand(waiting, policy)
        plan = self._placer.plan_split(waiting, demand, PassContext(pool, policy, now))
        return WaitingView(
            position=queue.position(waiting),
            ordering_key="; ".join(filter(None, (policy.ordering.describe(waiting, now), queue.share_of(waiting)))),
            because=why_waiting(waiting, Offer.for_whole(demand, pool), plan, pool, queue, now),
        )

    def accuracy(self, instance_id: str) -> dict[str, Accuracy]:
        """Return how close predictions about an instance were, by kind: "iteration", "first_token", "finish".

        Raises InstanceNotFound.
        """
        predictor = self._registry.get(instance_id).predictor
        return predictor.accuracies() if predictor is not None else {}

    def output_coverage(self) -> Coverage:
        """Return how often outputs were no longer than predicted."""
        return self._outputs.coverage

    # ------------------------------------------------------------------ policy

    @property
    def policy(self) -> str:
        """Name of the policy in force."""
        return self._policy.name

    @property
    def delegate(self) -> str:
        """Name of the policy that the one in force follows now; empty if it decides itself."""
        return self._policy.delegate

    @property
    def switches(self) -> tuple[PolicySwitch, ...]:
        """The latest switches of policy, at most ``max_switches``, oldest first."""
        return self._policy.switches

    def policy_summaries(self) -> dict[str, str]:
        """One line about each policy that can be put in force, by name."""
        return self._policy.summaries()

    def policy_warnings(self) -> dict[str, str]:
        """Return what to know before a policy is put in force, by name; only of policies with a warning."""
        return self._policy.warnings()

    @property
    def policy_warning(self) -> str:
        """What to know about the policy in force; empty if there is nothing."""
        return self._policy.warning

    def set_policy(self, name: str, now: float, reason: str) -> tuple[str, int]:
        """Switch the policy and reorder all waiting requests; none is lost.

        Returns the previous policy's name and how many requests were reordered.  If the policy is in force already,
        nothing changes and the number is 0.  Raises UnknownPolicy, PolicyFailed if the new policy's code fails.
        """
        previous = self._policy.name
        if not self._policy.choose(name, now, reason):
            return previous, 0
        if self._placer.shadow is not None:  # what it was compared with is over
            self.set_shadow(self._shadow_name, now)
        try:
            return previous, self._reorder_all(now)
        except Exception as error:
            raise self._policy_failed(error, now) from error

    @property
    def shadow(self) -> ShadowReport | None:
        """How the shadow policy's choices compare with those that were made; None without a shadow policy."""
        return self._placer.shadow.report() if self._placer.shadow is not None else None

    def set_shadow(self, name: str, now: float) -> str:
        """Let a policy decide beside the one in force from now on, compared from zero; an empty name ends that.

        It decides on the same offers and reserves nothing.  The first exception that it raises switches it off
        (``ShadowReport.failure``) and touches no request.  ``set_policy`` starts the comparison over.  Returns the
        previous shadow policy's name, empty if there was none.  Raises UnknownPolicy; then nothing changes.
        """
        made = ShadowPolicy(PolicyInForce(self._policies, replace(self.settings, policy=name)), now) if name else None
        previous, self._shadow_name = self._shadow_name, name
        self._placer.shadow = made
        return previous

    def tick(self, now: float) -> list[PolicySwitch]:
        """Let a governing policy reconsider which policy each model follows.  Returns the switches it made.

        Cheap to call often: the policy evaluates at its own interval.
        """
        due, shadow = self._policy.due(now), self._placer.shadow
        if not due and shadow is None:
            return []
        pools = [pool for pool in self._registry.pools() if pool.queue is not None]
        if shadow is not None:
            shadow.tick(lambda: {pool.model: self._read_signals(pool, now) for pool in pools}, now)
        if not due:
            return []
        models = {pool.model for pool in pools}
        self._policy.forget(models)
        self._signals.forget(models)
        return [switch for pool in pools if (switch := self._reconsider(pool, now)) is not None]

    def _reconsider(self, pool: Pool, now: float) -> PolicySwitch | None:
        """Let a model's governor decide, and reorder the model's queue if it switches; fifo follows if it fails."""
        try:
            switch = self._policy.reconsider(pool.model, self._read_signals(pool, now), now)
            if switch is not None:
                self._reorder(pool, now)
        except Exception as error:
            switch = self._policy.fall_back(error, now)
            self._reorder_all(now)
        return switch

    def _read_signals(self, pool: Pool, now: float) -> Signals:
        waiting = pool.queue.by_priority if pool.queue is not None else {}
        return self._signals.read(pool.model, pool.accounts, pool.load, waiting, now)

    def _reorder_all(self, now: float) -> int:
        """Reorder all queues.  Returns the number of requests."""
        return sum(self._reorder(pool, now) for pool in self._registry.pools())

    def _reorder(self, pool: Pool, now: float) -> int:
        """Reorder a model's queue by the policy that it follows now.  Returns the number of requests."""
        pool.drain.reordered()
        return pool.queue.reorder(self._policy.acting(pool.model).ordering, now) if pool.queue is not None else 0


def _is_over(waiting: WaitingRequest, now: float) -> bool:
    """Whether a request's deadline has passed."""
    deadline_at = waiting.request.deadline_at
    return deadline_at is not None and deadline_at <= now
