"""One pass over one model's queue: who goes now, and where."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from scheduler_svc.domain.backfilling import Backfilling
from scheduler_svc.domain.fleet.quiet_instances import quiet_ones
from scheduler_svc.domain.objectives import faster_full
from scheduler_svc.domain.ordering.base import goes_by_arrival
from scheduler_svc.domain.pass_result import PassResult
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.quarantined import Quarantined
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.queue_order import OrderingFailed
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.servability import all_can_serve_waiting
from scheduler_svc.domain.targets import Targets, ttft_target_of
from scheduler_svc.domain.waiting_request import WaitingRequest

_LOOKS: Final = 256  # requests set aside from the head, or stepped back, in one pass
#: Share of its TTFT target that a request of another class waits for before no instance is quiet.
_PATIENCE: Final = 0.5


class _Outcome(Enum):
    """What became of a head."""

    PLACED = "placed"
    STEPPED_BACK = "stepped_back"  # it is late, and others may still be in time
    BLOCKED = "blocked"  # it fits nowhere now, or waits for an instance
    UNSERVABLE = "unservable"  # no READY instance can serve it


class SchedulingPass:
    """Places the head of a queue, again and again, until a head fits nowhere.

    Quarantined requests go before it (``Quarantined``), a few of those behind that head where they do not delay it
    (``Backfilling``).
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
        self._quarantined = Quarantined(placer)
        self._backfilling = Backfilling(placer, backfill_depth, default_targets)
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
        if not self._quarantined.place(queue, context, result):
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
            turn = queue.order.why_next(head)
            decision = self._placer.place_split(head, demand, plan, plan.split, context, remarks=turn)
        else:
            offer = Offer.for_whole(demand, pool)
            if not offer.able and (plan is None or not plan.may_be_split_later):
                return _Outcome.UNSERVABLE
            if not offer.with_capacity and demand.must_leave_reserve and pool.quiet.give_way(offer.able):
                offer = Offer.for_whole(demand, pool)
            head.waits_for = ""
            if not offer.with_capacity:
                self._backfilling.place(head, offer, plan, queue, context, budget, result)
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
                held = choice.waits_alike
                self._backfilling.place(head, offer, plan, queue, context, budget, result, held=held)
                return _Outcome.BLOCKED
            turn = queue.order.why_next(head)
            decision = self._placer.place_whole(head, offer, choice, context, remarks=turn, plan=plan)
        head.unserved_since = None
        result.placed(head, decision, queue)
        return _Outcome.PLACED

    def _steps_back(
        self, head: WaitingRequest, least_times: tuple[float, float], queue: ModelQueue, now: float
    ) -> bool:
        """Whether a head that no instance is predicted to serve in time lets those go first that can be.

        Each request steps back at most ``MAX_REVISIONS`` times (``queue_order.py``).
        """
        first_token_s, finish_s = least_times
        return queue.placeable > 1 and queue.reconsider(head, now, first_token_s=first_token_s, finish_s=finish_s)


def _nobody_goes(head: WaitingRequest, queue: ModelQueue, context: PassContext) -> bool:
    """Whether neither a head that is not split nor anyone behind it has a place, where no instance takes any prompt.

    None takes a CRITICAL one either, or none of these waits.  Cheap: looks at no instance.
    """
    pool, policy = context.pool, context.policy
    if not head.prompt_tokens or not all_can_serve_waiting(head, pool):
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
