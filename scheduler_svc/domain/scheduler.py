"""The whole of "who next, where, reserve" as one synchronous object.

It has no clock and no tasks: ``now`` (seconds on the scheduler's monotonic clock, never going back) comes with every
call, and nothing happens between calls.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.fleet_signals import FleetSignals
from scheduler_svc.domain.health import HealthVerdict, ProgressWatch, judge
from scheduler_svc.domain.instance import EngineFacts, InstanceRole, InstanceState, LoadReport
from scheduler_svc.domain.ledger import Ledger, Reservation
from scheduler_svc.domain.output_length import Coverage, OutputLengths
from scheduler_svc.domain.pace import prior_pace
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.pairs import End, Pair
from scheduler_svc.domain.pd.planner import SplitPlanner
from scheduler_svc.domain.pd.settings import PdSettings
from scheduler_svc.domain.placement.filters import cannot_serve, whole_blocks
from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.policy import Policy, PolicyCatalogue, PolicySwitch
from scheduler_svc.domain.pool import Pool
from scheduler_svc.domain.predictor import Accuracy, Predictor
from scheduler_svc.domain.queue import ModelQueue, QueueView, Waiting
from scheduler_svc.domain.registry import Instance, Registry
from scheduler_svc.domain.request import Request, RequestKey
from scheduler_svc.domain.scheduling_pass import SchedulingPass
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_view import WaitingView, why_waiting

__all__ = ["Scheduler", "SchedulerSettings"]

#: What a caller is told where nothing serves the model and nobody knows when something will.
UNKNOWN_WAIT_S = 30.0


class Scheduler:
    """One per scheduler.  Bounds are in ``SchedulerSettings``; what happens at each is said where it is met."""

    def __init__(self, settings: SchedulerSettings, policies: PolicyCatalogue) -> None:
        """Raises UnknownPolicy."""
        self.settings = settings
        self.policies = policies
        self.registry = Registry(max_instances=settings.max_instances, max_models=settings.max_models)
        self.more = False  # the last pass stopped at max_decisions_per_pass
        self.switches: deque[PolicySwitch] = deque(maxlen=settings.max_switches)  # oldest first
        self._ledger = Ledger()
        self._outputs = OutputLengths(quantile=settings.output_quantile, min_samples=settings.output_min_samples)
        self._signals = FleetSignals()
        self.pd = SplitPlanner(settings.pd)
        self._placer = Placer(self._ledger, self._outputs, self._signals, self.pd)
        self._pass = SchedulingPass(self._placer, backfill_depth=settings.backfill_depth)
        self._queued: dict[RequestKey, ModelQueue] = {}
        self._passes = 0
        self._evaluate_at = float("-inf")
        self._named = policies.make(settings.policy, settings)
        self._chosen = settings.policy  # as the catalogue names it; the policy may call itself otherwise
        self._acting = self._first_acting(self._named)

    # ------------------------------------------------------------------ instances

    def engine_ready(self, instance_id: str, facts: EngineFacts, now: float) -> Instance:
        """The engine is up and produced tokens.

        A new ``engine_start_id`` starts the predictor over.  An instance that is draining stays so, and one that is
        STALLED has to do iterations first.  Raises InstanceNotFound, InvalidTransition.
        """
        instance = self.registry.get(instance_id)
        start_id = instance.spec.engine_start_id
        if instance.predictor is None or instance.engine_start_id != start_id:
            instance.predictor = Predictor(prior_pace(facts), forgetting=self.settings.forgetting)
            instance.watch = ProgressWatch(now)
            instance.load = None
        instance.engine_start_id = start_id
        instance.facts = facts
        instance.account.open(
            facts,
            instance.predictor.pace,
            price_per_hour=instance.spec.price_per_hour,
            lookahead_share=self.settings.lookahead_share,
            uncached_share=instance.predictor.uncached_share,
        )
        instance.pool.invalidate()
        self._to_ready(instance, now)
        self.renew_pairs()  # at once, splitting or not: what its old engine proved says nothing of this one
        return instance

    def _to_ready(self, instance: Instance, now: float) -> None:
        if instance.state is InstanceState.SUSPECT and instance.recovers_to in _STAYS:
            self.registry.recover(instance.instance_id, "its engine is ready", now)
        if instance.state in _STAYS or instance.state is InstanceState.STALLED:
            return
        if instance.state is InstanceState.LOST or instance.state is InstanceState.FAILED:
            self.registry.transition(instance.instance_id, InstanceState.WARMING, "came back", now)
        self.registry.transition(instance.instance_id, InstanceState.READY, "its engine is ready", now)

    def report(self, instance_id: str, load: LoadReport, now: float) -> None:
        """Take a heartbeat.  Raises InstanceNotFound."""
        instance = self.registry.get(instance_id)
        account = instance.account
        instance.load = load
        instance.last_report_at = now
        account.report(load)
        seen = len(account.reservations) - len(account.unseen)
        instance.watch.observe(load, now, seen_reservations=seen)
        predictor = instance.predictor
        if predictor is not None and predictor.learn(load):
            account.learn(predictor.pace, predictor.uncached_share)
        instance.pool.changed = True

    def assigned(self, attempt_number: int, assign_number: int) -> bool:
        """The Assign of this attempt was sent under this number; False if the attempt is over.

        After a reconnect numbers start over: say the new number of everything that is sent again.
        """
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return False
        reservation.assign_number = assign_number
        return True

    def lose(self, instance_id: str, reason: str, now: float) -> list[int]:
        """Let go of all reservations on an instance; their attempt numbers, oldest first.

        The instance's state is not touched (``registry.transition``).  ``reason`` becomes its state's reason.  Raises
        InstanceNotFound.
        """
        instance = self.registry.get(instance_id)
        instance.state_reason = reason
        instance.pool.changed = True
        return self._ledger.leave_all(instance.account, now)

    def check_health(self, now: float) -> list[HealthVerdict]:
        """Judge all instances by their progress, and put the changes of state into effect."""
        verdicts = []
        for instance in self.registry.all():
            verdict = judge(instance, self.settings, now)
            if verdict is None:
                continue
            if verdict.state is InstanceState.STALLED:
                instance.watch.stall()
            self.registry.transition(instance.instance_id, verdict.state, verdict.reason, now)
            verdicts.append(verdict)
        return verdicts

    # ------------------------------------------------------------------ requests

    def enqueue(
        self,
        request: Request,
        now: float,
        *,
        emitted_tokens: int = 0,
        excluded: frozenset[str] = frozenset(),
        resumed: bool = False,
        whole: bool = False,
    ) -> None:
        """Let a request wait.

        ``emitted_tokens``: output tokens earlier attempts delivered.  ``whole``: do not split it.
        Resumed requests are never refused for want of room: they were accepted, and are at most as many as the fleet
        ran.  Raises QueueFull, LimitReached (models), ValueError if it waits already.
        """
        pool = self.registry.pool(request.model)
        queue = pool.queue
        if queue is None:
            limit = self.settings.queue_limit_per_model
            queue = pool.queue = ModelQueue(request.model, self._acting.ordering, limit=limit)
        if request.key in self._queued:
            raise ValueError(f"request {request.key} waits already")
        if not resumed and len(queue) >= queue.limit:
            queue.check_room(self.expected_wait(request.model, now))
        waiting = Waiting(
            request,
            enqueued_at=now,
            emitted_tokens=emitted_tokens,
            excluded=excluded,
            resumed=resumed,
            output_tokens=self._outputs.predict(request.model, request.sampling.max_tokens, emitted_tokens),
            pace=pool.pace(now),
            whole=whole,
        )
        queue.add(waiting, now)
        self._queued[request.key] = queue
        if not resumed:
            self._signals.arrived(request)

    def withdraw(self, key: RequestKey) -> bool:
        """Take a request out of its queue; False if it does not wait."""
        queue = self._queued.pop(key, None)
        return queue is not None and queue.remove(key) is not None

    def schedule(self, now: float) -> list[Decision]:
        """Place all that can be placed, at most ``max_decisions_per_pass``; then ``more`` is True.

        Only models of which something changed since the last pass are looked at; they take turns to be first.
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
        pools = [p for p in self.registry.pools() if p.queue and (p.changed or p.queue.changed)]
        self._passes += 1
        first = self._passes % len(pools) if pools else 0
        return pools[first:] + pools[:first]

    def _schedule_model(self, pool: Pool, now: float, budget: int) -> list[Decision]:
        queue = pool.queue
        assert queue is not None, "only pools with a queue are scheduled"
        pool.changed = queue.changed = False
        decisions = self._pass.run(pool, queue, self._acting, now, budget=budget)
        for decision in decisions:
            del self._queued[decision.key]
        return decisions

    def first_token(self, attempt_number: int, now: float) -> None:
        """The attempt's first token came.  Later calls change nothing."""
        reservation = self._ledger.find(attempt_number)
        if reservation is None or reservation.first_token_at is not None:
            return
        reservation.first_token_at = now
        reservation.account.first_token(reservation, now)
        predictor = self._predictor(reservation)
        if predictor is not None:
            predictor.first_token.add(reservation.first_token_in_s, now - reservation.made_at)

    def progress(self, attempt_number: int, tokens: int) -> None:
        """The request has ``tokens`` output tokens now, over all attempts.  Grows a reservation that was too small."""
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return
        need = reservation.prompt_tokens + tokens - reservation.emitted_tokens
        if need > reservation.tokens:
            account = reservation.account
            account.grow(reservation, whole_blocks(need, account.block))

    def release(self, attempt_number: int, now: float, *, output_tokens: int | None, finished: bool) -> bool:
        """What the reservation stands for is free.  False if it was released before.

        ``output_tokens``: of the request, over all attempts, where known.  ``finished``: the request ended by itself,
        so its length and times are worth learning from.
        """
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return False
        own_tokens = (output_tokens or reservation.emitted_tokens) - reservation.emitted_tokens
        self._ledger.leave(attempt_number, now, used_tokens=reservation.prompt_tokens + max(0, own_tokens))
        instance = self.registry.find(reservation.account.instance_id)
        if instance is not None:
            instance.pool.changed = True
            if finished and output_tokens is not None:
                self._learn(instance, reservation, now, output_tokens, own_tokens)
        return True

    def _learn(
        self, instance: Instance, reservation: Reservation, now: float, output_tokens: int, own_tokens: int
    ) -> None:
        took_s = now - reservation.made_at
        self._outputs.learn(instance.spec.model, reservation.max_tokens, output_tokens)
        instance.pool.observe_service(took_s)
        if instance.predictor is not None and own_tokens > 0:
            predicted_s = reservation.first_token_in_s + (own_tokens - 1) * reservation.token_s
            instance.predictor.finish.add(predicted_s, took_s)

    def _predictor(self, reservation: Reservation) -> Predictor | None:
        instance = self.registry.find(reservation.account.instance_id)
        return instance.predictor if instance is not None else None

    # ------------------------------------------------------------------ prefill and decode

    def park(self, attempt_number: int, now: float) -> bool:
        """A prefill leg's sequence is over; its KV room stays taken until ``release``.  False if it is over."""
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return False
        reservation.account.park(reservation, now)
        instance = self.registry.find(reservation.account.instance_id)
        if instance is not None:
            instance.pool.changed = True
        return True

    def handed_over(self, pair: Pair | None, handoff_s: float) -> None:
        """A handoff went through: prefill's end to decode's first token took so long."""
        if pair is not None:
            self.pd.pairs.worked(pair, handoff_s)

    def handoff_failed(self, pair: Pair | None, cause: Fallback, reason: str, now: float) -> None:
        """The pair is not used until it hands over again.  None: neither end is to blame."""
        self.pd.fallback_causes[cause] += 1
        if pair is not None:
            self.pd.pairs.failed(pair, reason, now)

    def set_pd(self, settings: PdSettings) -> None:
        """What an operator wants of splitting from now on; the pairs are those of the engines that run now."""
        self.pd.settings = settings
        self.renew_pairs()

    def renew_pairs(self) -> None:
        """Form the pairs of the engines that run now.

        An instance that is not READY for a while keeps its engine, and so what its pairs have proved.
        """
        up = [i for i in self.registry if i.state in _HAS_ENGINE and i.facts is not None]
        suited = [(_end(i), i.specialization) for i in up]
        self.pd.renew(
            (e for e, s in suited if s.prefill > 0),
            (e for e, s in suited if s.decode > 0),
            away=(i.instance_id for i in up if i.state is not InstanceState.READY),
        )

    def pd_conditions(self) -> list[str]:
        """What keeps splitting from working, in words; empty when all is well or splitting is off."""
        return [condition for pool in self.registry.pools() for condition in self.pd.conditions(pool)]

    def unreserved_attempt(self) -> int:
        """A number for an attempt that takes no room to speak of: a warm-up."""
        return self._ledger.next_number()

    # ------------------------------------------------------------------ looking

    def waiting(self, model: str) -> int:
        """Requests of the model in the queue."""
        pool = self.registry.find_pool(model)
        return len(pool.queue) if pool is not None and pool.queue is not None else 0

    def queues(self) -> dict[str, QueueView]:
        """By model; models whose queue was never used are left out."""
        return {p.model: p.queue.view() for p in self.registry.pools() if p.queue is not None}

    def live_attempts(self) -> int:
        """Reservations there are."""
        return len(self._ledger)

    def expected_wait(self, model: str, now: float) -> float:
        """Seconds until a request that comes now would be placed: how long the queue takes at the rate it drains.

        As if all ran whole: what is split may go sooner.
        """
        pool = self.registry.find_pool(model)
        if pool is None or not pool.accounts:
            return UNKNOWN_WAIT_S
        waiting = len(pool.queue) if pool.queue is not None else 0
        if not waiting and any(a.free_slots > 0 for a in pool.accounts):
            return 0.0
        return (waiting + 1) * pool.service_s(now) / pool.slots

    def position(self, key: RequestKey, now: float) -> WaitingView | None:
        """Where a request stands in its queue; None if it does not wait."""
        queue = self._queued.get(key)
        waiting = queue.find(key) if queue is not None else None
        if queue is None or waiting is None:
            return None
        pool = self.registry.pool(queue.model)
        ask = self._placer.ask(waiting, self._acting)
        plan = self._placer.plan(waiting, ask, pool, self._acting, now)
        return WaitingView(
            position=queue.position(waiting),
            ordering_key=self._acting.ordering.describe(waiting, now),
            because=why_waiting(waiting, self._placer.offer(ask, pool), plan, pool, queue, now),
        )

    def can_ever_serve(self, request: Request) -> str | None:
        """None if some live instance serves it or may once its engine is up; else why none does."""
        return self._who_serves(request, [i for i in self._of_model(request.model) if i.live])

    def servable_now(self, request: Request) -> str | None:
        """None if some READY instance serves it, full or not; else why none does."""
        ready = [i for i in self._of_model(request.model) if i.state is InstanceState.READY]
        if not ready:
            pool = self.registry.find_pool(request.model)
            states = pool.states() if pool is not None else "none registered"
            return f"no instance of {request.model!r} is ready ({states})"
        return self._who_serves(request, ready)

    def _of_model(self, model: str) -> list[Instance]:
        pool = self.registry.find_pool(model)
        return pool.instances() if pool is not None else []

    def _who_serves(self, request: Request, instances: list[Instance]) -> str | None:
        """None if one of them does; else the reasons, each once."""
        total = request.prompt_tokens + request.sampling.max_tokens
        reasons: list[str] = []
        for instance in instances:
            if instance.facts is None:
                return None
            reason = _refusal(instance, instance.facts, request, total)
            if reason is None:
                return None
            reasons.append(f"{instance.instance_id} {reason}")
        if not reasons:
            return f"no live instance serves {request.model!r}"
        shown = "; ".join(reasons[:_REASONS_SHOWN])
        more = len(reasons) - _REASONS_SHOWN
        return shown + (f"; and {more} more" if more > 0 else "")

    def accuracy(self, instance_id: str) -> dict[str, Accuracy]:
        """Of predictions about the instance: "iteration", "first_token", "finish".  Raises InstanceNotFound."""
        predictor = self.registry.get(instance_id).predictor
        return predictor.accuracies() if predictor is not None else {}

    def output_coverage(self) -> Coverage:
        """How often outputs were no longer than predicted."""
        return self._outputs.coverage

    # ------------------------------------------------------------------ policy

    @property
    def policy(self) -> str:
        """The name in force."""
        return self._named.name

    @property
    def delegate(self) -> str:
        """The policy that the one in force follows now; empty if it decides itself."""
        return self._acting.name if self._named.governor is not None else ""

    def set_policy(self, name: str, now: float, reason: str) -> tuple[str, int]:
        """Switch; all that waits is ordered anew and none is lost.  Returns the previous name and how many wait.

        The policy that is in force already goes on as it is: no switch, nothing ordered anew.  Raises UnknownPolicy.
        """
        previous = self._named.name
        if name == self._chosen:
            return previous, 0
        named = self.policies.make(name, self.settings)
        self._named, self._chosen = named, name
        reordered = self._act(self._first_acting(named), now)
        self.switches.append(PolicySwitch(from_policy=previous, to_policy=name, reason=reason, at=now))
        return previous, reordered

    def tick(self, now: float) -> list[PolicySwitch]:
        """Let a governing policy reconsider.  Cheap to call often: it evaluates at its own interval."""
        governor = self._named.governor
        if governor is None or now < self._evaluate_at:
            return []
        self._evaluate_at = now + self.settings.adaptive_interval_s
        wish = governor.decide(self._signals.read(self.registry.pools()), self._acting.name, now)
        if wish is None or wish.policy == self._acting.name:
            return []
        switch = PolicySwitch(from_policy=self._acting.name, to_policy=wish.policy, reason=wish.reason, at=now)
        self._act(self._make_acting(self._named, wish.policy), now)
        self.switches.append(switch)
        return [switch]

    def _first_acting(self, named: Policy) -> Policy:
        return self._make_acting(named, named.governor.first) if named.governor is not None else named

    def _make_acting(self, named: Policy, name: str) -> Policy:
        return replace(self.policies.make(name, self.settings), governed_by=named.name)

    def _act(self, acting: Policy, now: float) -> int:
        self._acting = acting
        self._evaluate_at = now
        return sum(p.queue.reorder(acting.ordering, now) for p in self.registry.pools() if p.queue is not None)


def _refusal(instance: Instance, facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    if instance.role is InstanceRole.EMBEDDING:
        return "does not generate"
    refusal = cannot_serve(facts, request, total_tokens)
    return refusal[1] if refusal is not None else None


def _end(instance: Instance) -> End:
    facts = instance.facts
    return End(
        instance_id=instance.instance_id,
        engine_start_id=instance.engine_start_id,
        compatibility_key=facts.compatibility_key if facts is not None else "",
        model=instance.spec.model,
    )


_STAYS = (InstanceState.DRAINING, InstanceState.DRAINED, InstanceState.READY)
_HAS_ENGINE = frozenset({*_STAYS, InstanceState.SUSPECT, InstanceState.STALLED})
_REASONS_SHOWN = 4
