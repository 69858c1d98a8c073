"""One pass over one model's queue: place what can be placed, in order."""

from __future__ import annotations

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.placement.ask import Ask
from scheduler_svc.domain.placement.claim import Claim, best_claim
from scheduler_svc.domain.placer import Offer, Placer, without_claimed
from scheduler_svc.domain.policy import Policy
from scheduler_svc.domain.pool import Pool
from scheduler_svc.domain.queue import ModelQueue, Waiting


class QueuePass:
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
                decisions += self._backfill(head, offer, pool, queue, policy, now, budget - len(decisions))
                break
            decisions.append(self._placer.place(head, offer, pool, policy, now, plan=plan))
            queue.remove(head.request.key)
        return decisions

    def _backfill(
        self,
        head: Waiting,
        blocked: Offer,
        pool: Pool,
        queue: ModelQueue,
        policy: Policy,
        now: float,
        budget: int,
    ) -> list[Decision]:
        if len(queue) == 1 or not any(a.prompt_room > 0 for a in pool.accounts):
            return []
        claim = self._claim(head, blocked, pool, now)
        said = (_ahead_of(head, claim),)
        too_much = [] if blocked.ask.constrained else [blocked.ask]
        decisions: list[Decision] = []
        for waiting in queue.behind_head(self._depth, now):
            if len(decisions) >= budget:
                break
            ask = self._placer.ask(waiting, policy)
            if any(_wants_as_much(ask, other) for other in too_much):
                continue
            plan = self._placer.plan(waiting, ask, pool, policy, now)
            if plan is not None and plan.phase.split:
                continue  # what should be split keeps its turn: run whole behind a head it would be in the way
            offer = self._placer.offer(ask, pool)
            if not offer.roomy and not ask.constrained:
                too_much.append(ask)
            if claim is not None:
                offer.roomy = without_claimed(offer, claim, now)
            if not offer.roomy:
                continue
            decision = self._placer.place(waiting, offer, pool, policy, now, said=said, plan=plan)
            if claim is not None and decision.instance_id == claim.account.instance_id:
                claim.take(ask)
            queue.remove(waiting.request.key)
            decisions.append(decision)
        return decisions

    def _claim(self, head: Waiting, blocked: Offer, pool: Pool, now: float) -> Claim | None:
        """The head keeps its claim while it is the head and the instance can serve it."""
        claim = pool.claim
        if pool.claimant is head and claim is not None and claim.account in blocked.able:
            claim.look_ahead(blocked.ask, now)
            return claim
        pool.claimant = head
        pool.claim = best_claim(blocked.ask, blocked.able, now, backfills=self._depth)
        return pool.claim


def _wants_as_much(ask: Ask, other: Ask) -> bool:
    """Whether there is no room for ``ask`` where there was none for ``other``, which any instance could serve."""
    return (
        ask.tokens >= other.tokens and ask.prompt_tokens >= other.prompt_tokens and (ask.headroom or not other.headroom)
    )


def _ahead_of(head: Waiting, claim: Claim | None) -> str:
    where = f", which waits for room on {claim.account.instance_id}" if claim is not None else ""
    return f"backfilled ahead of {head.request.key}{where}"
