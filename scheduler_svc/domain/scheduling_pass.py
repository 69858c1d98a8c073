"""One pass over one model's queue: who goes now, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice

from scheduler_svc.domain.capacity.accounts import NO_ACCOUNTS, Accounts
from scheduler_svc.domain.capacity.claim import Claim, best_claim, can_claim
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import highest
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.fleet.quiet_instances import quiet_ones
from scheduler_svc.domain.held_alike import HeldAlike
from scheduler_svc.domain.hidden import hidden
from scheduler_svc.domain.objectives import faster_full, held_back
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.ordering.base import goes_by_arrival
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.filters import with_kv
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.placement.room import MostRoom
from scheduler_svc.domain.placement.split_planner import SplitPlan
from scheduler_svc.domain.queue import ModelQueue, OrderingFailed
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.shares.group import Charge
from scheduler_svc.domain.targets import Targets, ttft_target_of
from scheduler_svc.domain.waiting_request import WaitingRequest

#: Requests set aside from the head, or stepped back, in one pass; quarantined ones looked at; those behind the head
#: of which some are looked at where others are held back.
_LOOKS = 256
#: Seconds between two looks behind those that are held back: a pass runs many times a second, and each walks the queue.
_FURTHER_S = 0.025
_ALONE = "quarantined: runs alone, because it was present when engines died"
#: Share of its TTFT target that a request of another class waits for before no instance is quiet.
_PATIENCE = 0.5
_KEPT = "an instance was emptied for it"


class _Outcome(Enum):
    """What became of a head."""

    PLACED = "placed"
    STEPPED_BACK = "stepped_back"  # it is late, and others may still be in time
    BLOCKED = "blocked"  # it fits nowhere now, or waits for an instance
    UNSERVABLE = "unservable"  # no READY instance can serve it


class SchedulingPass:
    """Places the head of a queue, again and again, until a head fits nowhere.

    That head claims an instance, and a few requests behind it are backfilled where they do not delay it; under a policy
    that keeps order, only on instances that cannot serve the head or lack KV memory for it.
    """

    def __init__(
        self,
        placer: Placer,
        *,
        backfill_depth: int,
        instances_per_quiet_one: int,
        default_targets: Mapping[Priority, Targets],
    ) -> None:
        """``instances_per_quiet_one``: of so many instances, one is kept quiet where the policy protects CRITICAL."""
        self._placer = placer
        self._depth = backfill_depth
        self._per_quiet_one = instances_per_quiet_one
        self._defaults = default_targets

    def run(self, queue: ModelQueue, context: PassContext, *, budget: int) -> PassResult:
        """Make at most ``budget`` decisions.  Requests that are placed leave the queue with their capacity reserved.

        Requests that no READY instance can serve are set aside, so that they delay nobody.  If the policy's code raises
        an error, the request that it was asked about leaves the queue and the pass ends.
        """
        result = PassResult()
        if queue.brought_back_at != context.pool.generation:
            queue.brought_back_at = context.pool.generation
            queue.bring_back()
        try:
            self._run(queue, context, budget, result)
        except OrderingFailed as failure:
            result.failed = failure.waiting, failure.error
        if result.failed is not None:
            queue.withdraw(result.failed[0].request.key, context.now)
        return result

    def _run(self, queue: ModelQueue, context: PassContext, budget: int, result: PassResult) -> None:
        self._keep_quiet(queue, context)
        if not self._place_apart(queue, context, result):
            return
        looks, decisions, accounts = _LOOKS, result.decisions, context.pool.accounts
        served, roomy = len(accounts) > 0, accounts.roomy_rows  # these follow what is placed
        while len(decisions) < budget and (head := queue.head(context.now)) is not None:
            if not served:
                break
            if not looks:
                result.more = True
                break
            try:
                if not roomy and not self._placer.splits and _nobody_goes(head, queue, context):
                    break
                outcome = self._place_head(head, queue, context, budget, result)
            except OrderingFailed:
                raise
            except Exception as error:
                result.failed = head, error
                break
            if outcome is _Outcome.BLOCKED:
                break
            if outcome is not _Outcome.PLACED:
                looks -= 1
            if outcome is _Outcome.UNSERVABLE:
                queue.set_aside(head, context.now)

    def _keep_quiet(self, queue: ModelQueue, context: PassContext) -> None:
        """Keep instances free of other prompts for CRITICAL requests, where engines put these before others."""
        pool, policy, count = context.pool, context.policy, 0
        protects: int = getattr(policy.objective, "reserved_slots", 0)  # a plug-in may lack it
        if protects and policy.engine_classes:
            if queue.waits_critical():
                pool.quiet.critical_came(context.now)
            if pool.quiet.wanted(context.now):
                count = quiet_ones(pool.accounts, self._per_quiet_one)
            if count and self._others_wait_long(queue, context.now):
                count = 0
        pool.quiet.take_turns(pool.accounts, count)

    def _others_wait_long(self, queue: ModelQueue, now: float) -> bool:
        """Whether a request of another class has waited for capacity for more than ``_PATIENCE`` of its TTFT target.

        Then the fleet lacks the capacity that a quiet instance would take from it.
        """
        for oldest in queue.oldest_placeable():
            request = oldest.request
            ttft_s = ttft_target_of(request, self._defaults)
            critical = request.priority is Priority.CRITICAL
            if not critical and ttft_s is not None and now - oldest.enqueued_at > _PATIENCE * ttft_s:
                return True
        return False

    def _place_head(
        self, head: WaitingRequest, queue: ModelQueue, context: PassContext, budget: int, result: PassResult
    ) -> _Outcome:
        """Place the head; if it fits nowhere now, place requests behind it."""
        pool = context.pool
        demand = self._placer.demand(head, context.policy)
        plan = self._placer.plan_split(head, demand, context)
        if plan is not None and plan.split is not None:
            turn = queue.why_next(head)
            decision = self._placer.place_split(head, demand, plan, plan.split, context, remarks=turn)
        else:
            offer = Offer.for_whole(demand, pool)
            if not offer.able and not _may_be_split_later(plan):
                return _Outcome.UNSERVABLE
            if not offer.with_capacity and demand.must_leave_reserve and pool.quiet.give_way(offer.able):
                offer = Offer.for_whole(demand, pool)
            head.waits_for = ""
            if not offer.with_capacity:
                self._backfill(head, offer, plan, queue, context, budget, result)
                return _Outcome.BLOCKED
            demand.behind = demand.others_wait = queue.placeable - 1
            demand.waits_since = head.waits_since
            choice = self._placer.choose(offer, context)
            if choice.least_times is not None and self._steps_back(head, choice.least_times, queue, context.now):
                return _Outcome.STEPPED_BACK
            if choice.waits:
                head.waits_for = choice.why
                if head.waits_since is None and choice.rule == faster_full.RULE:
                    head.waits_since = context.now
                held = choice.rule == held_back.RULE
                self._backfill(head, offer, plan, queue, context, budget, result, held=held)
                return _Outcome.BLOCKED
            turn = queue.why_next(head)
            decision = self._placer.place_whole(head, offer, choice, context, remarks=turn, plan=plan)
        head.unserved_since = None
        result.placed(head, decision, queue)
        return _Outcome.PLACED

    def _place_apart(self, queue: ModelQueue, context: PassContext, result: PassResult) -> bool:
        """Place the first quarantined request that an instance can serve where nothing else runs, or make such a place.

        Returns False if the policy failed.
        """
        isolation, accounts = context.pool.isolation, context.pool.accounts
        if isolation.account is None and not queue.any_apart:
            return True
        for waiting in islice(queue.all_apart, _LOOKS):
            try:
                offer = Offer.for_whole(self._placer.demand(waiting, context.policy), context.pool)
                if not offer.able:
                    waiting.unserved_since = waiting.unserved_since or context.now
                    continue
                waiting.unserved_since = None
                if not isolation.in_use(accounts, waiting.request.key):
                    isolation.open()
                decision = self._place_alone(waiting, offer, context)
            except Exception as error:
                result.failed = waiting, error
                return False
            if decision is not None:
                result.placed(waiting, decision, queue)
            return True
        if not isolation.in_use(accounts, None):
            isolation.open()
        return True

    def _place_alone(self, waiting: WaitingRequest, offer: Offer, context: PassContext) -> Decision | None:
        """Place a quarantined request on the instance that is kept for it, or keep one and empty it first."""
        isolation = context.pool.isolation
        if isolation.key not in (None, waiting.request.key):
            return None
        account = isolation.account if isolation.account in offer.able else None
        account = account or min(offer.able, key=lambda a: len(a.reservations))
        isolation.keep(account, waiting.request.key)
        if account.reservations:
            return None
        offer.with_capacity = offer.able.only(account.instance_id)
        choice = self._placer.choose(offer, context)
        if choice.waits:  # for another one, but this one is kept for it
            choice = Choice(index=choice.index, why=_KEPT, rule="kept", scores=choice.scores)
        return self._placer.place_whole(waiting, offer, choice, context, remarks=(_ALONE,))

    def _steps_back(
        self, head: WaitingRequest, least_times: tuple[float, float], queue: ModelQueue, now: float
    ) -> bool:
        """Whether a head that no instance is predicted to serve in time lets those go first that can be.

        Each request steps back at most ``ModelQueue.MAX_REVISIONS`` times.
        """
        first_token_s, finish_s = least_times
        return queue.placeable > 1 and queue.reconsider(head, now, first_token_s=first_token_s, finish_s=finish_s)

    def _backfill(
        self,
        head: WaitingRequest,
        blocked: Offer,
        plan: SplitPlan | None,
        queue: ModelQueue,
        context: PassContext,
        budget: int,
        result: PassResult,
        *,
        held: bool = False,
    ) -> None:
        """Place requests behind a head that fits nowhere or waits.

        ``blocked``: what the head was offered.  ``held``: whether it waits for others.
        """
        pool = context.pool
        pairs = self._placer.pairs_open(pool) and not _waits_for_a_pair(plan)
        if len(queue) == 1 or not (pairs or highest(pool.accounts.figures.prompt_limit) > 0):
            return
        kept = with_kv(blocked.able, blocked.demand) if context.policy.keeps_order else NO_ACCOUNTS
        if not pairs and len(kept) == len(pool.accounts):
            return
        claim = self._claim(head, blocked, pool, context.now)
        gap = _Gap(
            claim=claim,
            kept=kept,
            head=head,
            pairs=pairs,
            waiting=queue.placeable - 1,
            too_much=[blocked.demand] if not blocked.with_capacity and _any_can_serve(blocked.demand, pool) else [],
            most_room=None if self._placer.splits else MostRoom(pool.accounts),
            held=HeldAlike(self._defaults, context.now),
        )
        if held:
            gap.held.add(head)
        behind = queue.behind_head(self._depth, context.now, lambda w: self._unservable(w, context))
        self._place_each(behind, gap, queue, context, budget, result)
        due = context.now - queue.looked_further_at >= _FURTHER_S
        if gap.held_back and due and len(behind) == self._depth and result.failed is None:
            queue.looked_further_at = context.now
            further = queue.behind_head(_LOOKS, context.now, lambda w: self._unservable(w, context))
            others = hidden(further, {head, *behind}, self._defaults, context.now, most=gap.held_back)
            self._place_each(others, gap, queue, context, budget, result)

    def _place_each(
        self,
        behind: list[WaitingRequest],
        gap: _Gap,
        queue: ModelQueue,
        context: PassContext,
        budget: int,
        result: PassResult,
    ) -> None:
        """Place those of the requests behind the head that do not delay it.  Stops where the policy fails."""
        for waiting in behind:
            if len(result.decisions) >= budget:
                break
            try:
                decision = self._place_behind(waiting, gap, context)
            except Exception as error:
                result.failed = waiting, error
                return
            if decision is not None:
                result.placed(waiting, decision, queue)
                gap.most_room = None if gap.most_room is None else MostRoom(context.pool.accounts)

    def _unservable(self, waiting: WaitingRequest, context: PassContext) -> bool:
        """Return whether no READY instance can serve a request, as a whole or split."""
        if _served_by_any(waiting, context.pool):
            return False
        demand = self._placer.demand(waiting, context.policy)
        if Offer.for_whole(demand, context.pool).able:
            return False
        plan = self._placer.plan_split(waiting, demand, context)
        return plan is None or (plan.split is None and not _may_be_split_later(plan))

    def _place_behind(self, waiting: WaitingRequest, gap: _Gap, context: PassContext) -> Decision | None:
        """Place a request that is not the head, if that does not delay the head."""
        if gap.most_room is not None and self._placer.finds_no_room(waiting, context.policy, gap.most_room):
            return None
        if gap.held.covers(waiting):
            gap.held_back += 1
            return None
        demand = self._placer.demand(waiting, context.policy)
        full = any(_needs_as_much(demand, other) for other in gap.too_much)
        if full and not gap.may_split(demand):
            return None
        plan = self._placer.plan_split(waiting, demand, context)
        if plan is not None and plan.phase.split:
            return self._split_behind(waiting, demand, plan, gap, context)
        if full:
            return None
        offer = Offer.for_whole(demand, context.pool)
        if not offer.with_capacity and _any_can_serve(demand, context.pool):
            gap.too_much.append(demand)
        if gap.kept:
            offer.with_capacity = offer.with_capacity.less(gap.kept)
        if gap.claim is not None:
            offer.respect(gap.claim, context.now)
        if not offer.with_capacity:
            return None
        demand.others_wait = gap.waiting
        choice = self._placer.choose(offer, context)
        if choice.waits:
            gap.held_back += choice.rule != faster_full.RULE  # those soon go on
            if choice.rule == held_back.RULE:
                gap.held.add(waiting)
            return None
        decision = self._placer.place_whole(waiting, offer, choice, context, remarks=gap.remarks(waiting), plan=plan)
        if gap.claim is not None and decision.instance_id == gap.claim.account.instance_id:
            gap.claim.take(demand)
        return decision

    def _split_behind(
        self, waiting: WaitingRequest, demand: Demand, plan: SplitPlan, gap: _Gap, context: PassContext
    ) -> Decision | None:
        """Place a request that should be split.

        A request that cannot be split now stays in the queue: running whole, it could delay the head.
        """
        split = plan.split
        if split is None:
            if plan.fallback_cause is Fallback.NO_ROOM and _any_leg_can_serve(demand, context.pool):
                gap.too_much_for_pairs.append(demand)
            gap.held_back += plan.fallback_cause is Fallback.HELD_BACK
            return None
        if not gap.pairs or (gap.claim is not None and gap.claim.account in (split.decode, split.prefill)):
            return None
        if split.decode in gap.kept or split.prefill in gap.kept:
            return None
        return self._placer.place_split(waiting, demand, plan, split, context, remarks=gap.remarks(waiting))

    def _claim(self, head: WaitingRequest, blocked: Offer, pool: Pool, now: float) -> Claim | None:
        """Return the head's claim.  The head keeps it while it is the head and the instance will take it."""
        claim = pool.claim
        kept = pool.claimant is head and claim is not None and claim.account in blocked.able
        if kept and claim is not None and can_claim(blocked.demand, claim.account):
            claim.look_ahead(blocked.demand, now)
            return claim
        pool.claimant = head
        pool.claim = best_claim(blocked.demand, blocked.able, now, backfills=self._depth)
        return pool.claim


@dataclass(slots=True, kw_only=True)
class PassResult:
    """What one pass did."""

    decisions: list[Decision] = field(default_factory=list)
    more: bool = False  # it stopped before the end of the queue, and not for want of capacity
    failed: tuple[WaitingRequest, Exception] | None = None  # the request for which the policy raised an error
    charges: list[tuple[int, Charge]] = field(default_factory=list)  # by attempt, where tenants share

    def placed(self, waiting: WaitingRequest, decision: Decision, queue: ModelQueue) -> None:
        """Take a request that was placed out of the queue, and have its tenant charged."""
        charge = queue.place(waiting, decision.prediction.output_tokens)
        if charge is not None:
            self.charges.append((decision.attempt_number, charge))
        self.decisions.append(decision)


def _nobody_goes(head: WaitingRequest, queue: ModelQueue, context: PassContext) -> bool:
    """Whether neither a head that is not split nor anyone behind it has a place, where no instance takes any prompt.

    None takes a CRITICAL one either, or none of these waits.  Cheap: looks at no instance.
    """
    pool, policy = context.pool, context.policy
    if not head.prompt_tokens or not _served_by_any(head, pool):
        return False
    accounts = pool.accounts
    if not accounts.open_rows:
        return True
    if not policy.objective.reserved_slots or queue.waits_critical():
        return False
    # Those behind the head need not be looked at if none would be set aside and none may step back.  The head needs no
    # claim as long as slots are what is short: where another finds KV memory, the head does.
    most = queue.most_asked
    if most is None or not goes_by_arrival(policy.ordering) or not pool.serves_all(most):
        return False
    return accounts.least_free_tokens >= most.total_tokens


def _any_can_serve(demand: Demand, pool: Pool) -> bool:
    """Return whether every READY instance can serve the request once it is free."""
    return not demand.constrained and pool.serves_alike(demand.request, demand.total_tokens)


def _any_leg_can_serve(demand: Demand, pool: Pool) -> bool:
    """Return whether every READY instance that takes legs can serve the request once it is free."""
    return not demand.constrained and pool.legs_serve_alike(demand.request, demand.total_tokens)


def _served_by_any(waiting: WaitingRequest, pool: Pool) -> bool:
    """Return whether every READY instance can serve a waiting request.  Cheap: looks at no instance."""
    return waiting.plain and pool.serves_alike(waiting.request, waiting.total_tokens)


@dataclass(slots=True, kw_only=True)
class _Gap:
    """What one pass knows about the requests that may go before a blocked head."""

    claim: Claim | None  # the head's
    kept: Accounts  # instances on which none may go before the head
    head: WaitingRequest
    pairs: bool  # whether split requests may go
    waiting: int  # requests that wait beside each of them
    too_much: list[Demand]  # demands that no instance has capacity for
    most_room: MostRoom | None  # that any instance has now; None where requests may be split
    held: HeldAlike  # what waits for others
    too_much_for_pairs: list[Demand] = field(default_factory=list)  # demands that no pair has capacity for
    held_back: int = 0  # requests that their policy has wait beside capacity

    def remarks(self, waiting: WaitingRequest) -> tuple[str, ...]:
        """Return what the explanation of a request that goes before the head adds."""
        claim, head = self.claim, self.head.request.key.told_to(waiting.request.key.tenant)
        where = f", which waits for capacity on {claim.account.instance_id}" if claim is not None else ""
        return (f"backfilled ahead of {head}{where}",)

    def may_split(self, demand: Demand) -> bool:
        """Whether some pair may have capacity for the demand."""
        return self.pairs and not any(_needs_as_much(demand, other) for other in self.too_much_for_pairs)


def _waits_for_a_pair(plan: SplitPlan | None) -> bool:
    """Whether the head is to be split once there is capacity.

    Otherwise smaller split requests would take that capacity from the head again and again.
    """
    return plan is not None and plan.fallback_cause is Fallback.NO_ROOM


def _may_be_split_later(plan: SplitPlan | None) -> bool:
    """Whether a pair could serve the request, which waits for its capacity or for others."""
    return plan is not None and plan.fallback_cause in (Fallback.NO_ROOM, Fallback.HELD_BACK)


def _needs_as_much(demand: Demand, other: Demand) -> bool:
    """Whether no instance has capacity for ``demand``, as none had for ``other``, which any instance could serve."""
    return (
        demand.tokens >= other.tokens
        and demand.prompt_tokens >= other.prompt_tokens
        and (demand.must_leave_reserve or not other.must_leave_reserve)
    )
