"""Has the objective choose one of the instances that a request is offered."""

from __future__ import annotations

from typing import cast

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.cached_tokens import NOTHING_CACHED
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice, ChoosesOnly, Objective, Sparing, has_way
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes
from scheduler_svc.domain.prefixes.too_loaded import TooLoaded

#: The rule of a choice that its caller made.
PREFERRED = "preferred"


class Chooser:
    """Has objectives choose: no request goes to a too loaded instance for its cache's sake, and sessions stay."""

    __slots__ = ("_prefixes",)

    def __init__(self, prefixes: CachedPrefixes) -> None:
        self._prefixes = prefixes

    def balanced(self, demand: Demand, accounts: Accounts, objective: Objective) -> Demand:
        """Return the demand without what the caches of too loaded instances hold, so that their prefixes spread.

        For an objective that gathers load on few instances, none is too loaded.
        """
        cached = demand.cached_tokens
        if not cached or not accounts or _gathers_load(objective):
            return demand
        credited = self._prefixes.too_loaded(accounts).spare(cached)
        return demand if credited is cached else demand.crediting(credited)

    def choose(self, offer: Offer, context: PassContext) -> Choice:
        """Have the objective choose an instance of the offer; at least one has capacity for the request."""
        offer.demand.able = offer.able
        offer.demand.load = context.pool.load
        choice = self._choose(offer.demand, offer.with_capacity, context)
        if not choice.waits and offer.demand.request.session:
            self._keep_session(choice, offer, context)
        return choice

    def _choose(self, demand: Demand, offered: Accounts, context: PassContext) -> Choice:
        """Have the objective choose.  No request goes to a too loaded instance for its cache's sake.

        It goes there if the objective would have it so whatever caches hold: the fast ones of unequal instances may
        rightly have more to do than the mean.
        """
        objective, now, cached = context.policy.objective, context.now, demand.cached_tokens
        if not cached and offered is not demand.able and len(offered) == 1 and has_way(type(objective), "choose_only"):
            return cast("ChoosesOnly", objective).choose_only(demand, offered[0], now)
        if not cached or _gathers_load(objective):
            return objective.choose(demand, offered, now)
        too_loaded = self._prefixes.too_loaded(context.pool.accounts)
        if not too_loaded.hold_any(cached):
            return objective.choose(demand, offered, now)
        if not has_way(type(objective), "choose_sparing"):
            return _choose_twice(objective, demand, offered, now, too_loaded)
        among, held = too_loaded.among(offered), too_loaded.spared_column(cached, offered)
        return cast("Sparing", objective).choose_sparing(demand, offered, now, too_loaded=among, held=held)

    def _keep_session(self, choice: Choice, offer: Offer, context: PassContext) -> None:
        """Change the choice to the instance that ran the request's session last, if caches tell nothing of it.

        It stays where the objective chose if that instance is not offered, misses the request's targets, is too loaded
        or, where the objective gathers load, is not in use.
        """
        if offer.demand.cached_tokens:
            return
        last = self._prefixes.last_of_session(offer.demand.request)
        gathers = _gathers_load(context.policy.objective)
        if not last or (not gathers and last in self._prefixes.too_loaded(context.pool.accounts)):
            return
        i = offer.with_capacity.find(last)
        if i is not None and i not in choice.rejected and offer.with_capacity[i].free_slots > 0:
            choice.index = i
            choice.why = f"ran session {offer.demand.request.session!r} last"
            choice.rule = "session"


def prefer(choice: Choice, offer: Offer) -> tuple[str, ...]:
    """Change the choice to the instance that the caller prefers; if it is not offered, return why."""
    wanted = offer.demand.request.preferred_instance
    i = offer.with_capacity.find(wanted)
    if i is not None:
        choice.index = i
        choice.why = "preferred by the caller"
        choice.rule = PREFERRED
        return ()
    return (f"preferred instance {wanted!r} not used: {offer.why_not(wanted)}",)


def _choose_twice(objective: Objective, demand: Demand, offered: Accounts, now: float, too_loaded: TooLoaded) -> Choice:
    """Choose as ``Sparing.choose_sparing`` does, with an objective that has only ``choose``."""
    whatever = objective.choose(demand.crediting(NOTHING_CACHED), offered, now)
    if offered[whatever.index].instance_id in too_loaded:
        return whatever
    return objective.choose(demand.crediting(too_loaded.spare(demand.cached_tokens)), offered, now)


def _gathers_load(objective: Objective) -> bool:
    """Whether an objective gathers load on few instances; a plug-in's may lack the attribute."""
    return bool(getattr(objective, "gathers_load", False))
