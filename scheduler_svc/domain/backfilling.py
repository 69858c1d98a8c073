"""Places requests behind a head that fits nowhere or waits, where they do not delay it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler_svc.domain.capacity.accounts import NO_ACCOUNTS, Accounts
from scheduler_svc.domain.capacity.claim import Claim, best_claim, can_claim
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import highest
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.held_alike import HeldAlike
from scheduler_svc.domain.hidden import hidden
from scheduler_svc.domain.objectives import faster_full
from scheduler_svc.domain.pass_result import PassResult
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.filters import with_kv
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.placement.room import MostRoom
from scheduler_svc.domain.placement.split_planner import SplitPlan
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.servability import all_can_serve, all_can_serve_a_leg, all_can_serve_waiting
from scheduler_svc.domain.targets import Targets
from scheduler_svc.domain.waiting_request import WaitingRequest

_LOOKS = 256  # requests behind the head of which some are looked at where others are held back
#: Seconds between two looks behind those that are held back: a pass runs many times a second, and each walks the queue.
#: The next one that is due comes with whatever happens next, at the latest with a heartbeat.
_FURTHER_S = 0.025


@dataclass(slots=True, kw_only=True)
class Gap:
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


class Backfilling:
    """Has the head claim an instance, and places a few of those behind it elsewhere, or where they do not delay it.

    Under a policy that keeps order, they go only where instances cannot serve the head or lack KV memory for it.
    """

    def __init__(self, placer: Placer, depth: int, defaults: Mapping[Priority, Targets]) -> None:
        """``depth``: requests looked at.  ``defaults``: the targets of requests that state none."""
        self._placer = placer
        self._depth = depth
        self._defaults = defaults

    def place(
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

        ``blocked``: what the head was offered.  ``held``: whether it waits as whoever asks for as much does.
        """
        pool = context.pool
        pairs = self._placer.pairs_open(pool) and (plan is None or not plan.waits_for_a_pair)
        if len(queue) == 1 or not (pairs or highest(pool.accounts.figures.prompt_limit) > 0):
            return
        kept = with_kv(blocked.able, blocked.demand) if context.policy.keeps_order else NO_ACCOUNTS
        if not pairs and len(kept) == len(pool.accounts):
            return
        claim = self._claim(head, blocked, pool, context.now)
        gap = Gap(
            claim=claim,
            kept=kept,
            head=head,
            pairs=pairs,
            waiting=queue.placeable - 1,
            too_much=[blocked.demand] if not blocked.with_capacity and all_can_serve(blocked.demand, pool) else [],
            most_room=None if self._placer.splits else MostRoom(pool.accounts),
            held=HeldAlike(self._defaults, context.now),
        )
        if held and not self._placer.splits and all_can_serve_waiting(head, pool):
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
        gap: Gap,
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
        if all_can_serve_waiting(waiting, context.pool):
            return False
        demand = self._placer.demand(waiting, context.policy)
        if Offer.for_whole(demand, context.pool).able:
            return False
        plan = self._placer.plan_split(waiting, demand, context)
        return plan is None or (plan.split is None and not plan.may_be_split_later)

    def _place_behind(self, waiting: WaitingRequest, gap: Gap, context: PassContext) -> Decision | None:
        """Place a request that is not the head, if that does not delay the head."""
        if gap.most_room is not None and self._placer.finds_no_room(waiting, context.policy, gap.most_room):
            return None
        everywhere = all_can_serve_waiting(waiting, context.pool)
        covered = everywhere and gap.held.covers(waiting)
        if covered and not waiting.request.prefix_hashes:
            gap.held_back += 1
            return None
        demand = self._placer.demand(waiting, context.policy)
        if covered and not demand.cached_tokens:
            gap.held_back += 1
            return None
        full = any(_needs_as_much(demand, other) for other in gap.too_much)
        if full and not gap.may_split(demand):
            return None
        plan = self._placer.plan_split(waiting, demand, context)
        if plan is not None and plan.phase.split:
            return self._split_behind(waiting, demand, plan, gap, context)
        if full:
            return None
        offer = Offer.for_whole(demand, context.pool)
        if not offer.with_capacity and all_can_serve(demand, context.pool):
            gap.too_much.append(demand)
        whole = len(offer.with_capacity)
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
            alike = choice.waits_alike and everywhere and not demand.cached_tokens
            if alike and len(offer.with_capacity) == whole and not self._placer.splits:
                gap.held.add(waiting)
            return None
        decision = self._placer.place_whole(waiting, offer, choice, context, remarks=gap.remarks(waiting), plan=plan)
        if gap.claim is not None and decision.instance_id == gap.claim.account.instance_id:
            gap.claim.take(demand)
        return decision

    def _split_behind(
        self, waiting: WaitingRequest, demand: Demand, plan: SplitPlan, gap: Gap, context: PassContext
    ) -> Decision | None:
        """Place a request that should be split.

        A request that cannot be split now stays in the queue: running whole, it could delay the head.
        """
        split = plan.split
        if split is None:
            if plan.fallback_cause is Fallback.NO_ROOM and all_can_serve_a_leg(demand, context.pool):
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


def _needs_as_much(demand: Demand, other: Demand) -> bool:
    """Whether no instance has capacity for ``demand``, as none had for ``other``, which any instance could serve."""
    return (
        demand.tokens >= other.tokens
        and demand.prompt_tokens >= other.prompt_tokens
        and (demand.must_leave_reserve or not other.must_leave_reserve)
    )
