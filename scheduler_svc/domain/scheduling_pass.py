"""One pass over one model's queue: place what can be placed, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.planner import SplitPlan
from scheduler_svc.domain.placement.ask import Ask
from scheduler_svc.domain.placement.claim import Claim, best_claim
from scheduler_svc.domain.placement.placer import Offer, Placer, without_claimed
from scheduler_svc.domain.policy import Policy
from scheduler_svc.domain.pool import Pool
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.waiting_request import WaitingRequest


class SchedulingPass:
    """Places heads until one fits nowhere; that one claims an instance, and a few behind it may be backfilled."""

    def __init__(self, placer: Placer, *, backfill_depth: int) -> None:
        self._placer = placer
        self._depth = backfill_depth

    def run(self, pool: Pool, queue: ModelQueue, policy: Policy, now: float, *, budget: int) -> list[Decision]:
        """At most ``budget`` decisions.  What was placed has left the queue and has its room."""
        decisions: list[Decision] = []
        while len(decisions) < budget:
            head = queue.head(now)
            if head is None:
                break
            ask = self._placer.ask(head, policy)
            plan = self._placer.plan(head, ask, pool, policy, now)
            if plan is not None and plan.split is not None:
                decisions.append(self._placer.place_split(head, ask, plan, plan.split, pool, policy, now))
                queue.remove(head.request.key)
                continue
            offer = self._placer.offer(ask, pool)
            if not offer.roomy:
                decisions += self._backfill(head, offer, plan, pool, queue, policy, now, budget - len(decisions))
                break
            decisions.append(self._placer.place(head, offer, pool, policy, now, plan=plan))
            queue.remove(head.request.key)
        return decisions

    def _backfill(
        self,
        head: WaitingRequest,
        blocked: Offer,
        plan: SplitPlan | None,
        pool: Pool,
        queue: ModelQueue,
        policy: Policy,
        now: float,
        budget: int,
    ) -> list[Decision]:
        pairs = self._placer.pairs_open(pool) and not _waits_for_a_pair(plan)
        if len(queue) == 1 or not (pairs or any(a.prompt_room > 0 for a in pool.accounts)):
            return []
        claim = self._claim(head, blocked, pool, now)
        gap = _Gap(
            claim=claim,
            said=(_ahead_of(head, claim),),
            pairs=pairs,
            too_much=[] if blocked.ask.constrained else [blocked.ask],
        )
        decisions: list[Decision] = []
        for waiting in queue.behind_head(self._depth, now):
            if len(decisions) >= budget:
                break
            decision = self._place_behind(waiting, gap, pool, policy, now)
            if decision is not None:
                queue.remove(waiting.request.key)
                decisions.append(decision)
        return decisions

    def _place_behind(
        self, waiting: WaitingRequest, gap: _Gap, pool: Pool, policy: Policy, now: float
    ) -> Decision | None:
        """Place one that is not the head, if that does not delay the head."""
        ask = self._placer.ask(waiting, policy)
        full = any(_wants_as_much(ask, other) for other in gap.too_much)
        if full and not gap.may_split(ask):
            return None
        plan = self._placer.plan(waiting, ask, pool, policy, now)
        if plan is not None and plan.phase.split:
            return self._split_behind(waiting, ask, plan, gap, pool, policy, now)
        if full:
            return None
        offer = self._placer.offer(ask, pool)
        if not offer.roomy and not ask.constrained:
            gap.too_much.append(ask)
        if gap.claim is not None:
            offer.roomy = without_claimed(offer, gap.claim, now)
        if not offer.roomy:
            return None
        decision = self._placer.place(waiting, offer, pool, policy, now, said=gap.said, plan=plan)
        if gap.claim is not None and decision.instance_id == gap.claim.account.instance_id:
            gap.claim.take(ask)
        return decision

    def _split_behind(
        self, waiting: WaitingRequest, ask: Ask, plan: SplitPlan, gap: _Gap, pool: Pool, policy: Policy, now: float
    ) -> Decision | None:
        """What should be split and cannot be keeps its turn: run whole behind a head it would be in the way."""
        split = plan.split
        if split is None:
            if plan.fallback_cause is Fallback.NO_ROOM and not ask.constrained:
                gap.too_much_for_pairs.append(ask)
            return None
        if not gap.pairs or (gap.claim is not None and gap.claim.account in (split.decode, split.prefill)):
            return None
        return self._placer.place_split(waiting, ask, plan, split, pool, policy, now, said=gap.said)

    def _claim(self, head: WaitingRequest, blocked: Offer, pool: Pool, now: float) -> Claim | None:
        """The head keeps its claim while it is the head and the instance can serve it."""
        claim = pool.claim
        if pool.claimant is head and claim is not None and claim.account in blocked.able:
            claim.look_ahead(blocked.ask, now)
            return claim
        pool.claimant = head
        pool.claim = best_claim(blocked.ask, blocked.able, now, backfills=self._depth)
        return pool.claim


@dataclass(slots=True, kw_only=True)
class _Gap:
    """What may go before a blocked head, as far as one pass has found out."""

    claim: Claim | None  # the head's
    said: tuple[str, ...]  # of each that goes before it
    pairs: bool  # whether splits may
    too_much: list[Ask]  # there is no room for them whole
    too_much_for_pairs: list[Ask] = field(default_factory=list)  # nor for these at a pair

    def may_split(self, ask: Ask) -> bool:
        """Whether it is worth a look."""
        return self.pairs and not any(_wants_as_much(ask, other) for other in self.too_much_for_pairs)


def _waits_for_a_pair(plan: SplitPlan | None) -> bool:
    """Whether the head is to be split once there is room: smaller ones would take that room from it again and again."""
    return plan is not None and plan.fallback_cause is Fallback.NO_ROOM


def _wants_as_much(ask: Ask, other: Ask) -> bool:
    """Whether there is no room for ``ask`` where there was none for ``other``, which any instance could serve."""
    return (
        ask.tokens >= other.tokens and ask.prompt_tokens >= other.prompt_tokens and (ask.headroom or not other.headroom)
    )


def _ahead_of(head: WaitingRequest, claim: Claim | None) -> str:
    where = f", which waits for room on {claim.account.instance_id}" if claim is not None else ""
    return f"backfilled ahead of {head.request.key}{where}"
