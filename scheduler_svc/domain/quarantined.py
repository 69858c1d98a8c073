"""Places quarantined requests, each where nothing else runs."""

from __future__ import annotations

from itertools import islice

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.pass_result import PassResult
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.waiting_request import WaitingRequest

_LOOKS = 256  # quarantined requests looked at in one pass
_ALONE = "quarantined: runs alone, because it was present when engines died"
_KEPT = "an instance was emptied for it"


class Quarantined:
    """Places the quarantined requests of a queue; keeps an instance for one of them, and empties it first."""

    def __init__(self, placer: Placer) -> None:
        self._placer = placer

    def place(self, queue: ModelQueue, context: PassContext, result: PassResult) -> bool:
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
