"""The instances of one model and role, whose number follows their load."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from scheduler_svc.domain.capacity.offered_load import TokenCosts
from scheduler_svc.domain.expected_wait import predicted_wait
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import STARTING, InstanceState
from scheduler_svc.domain.request import Request
from scheduler_svc.domain.scaling.carried_share import CarriedShare
from scheduler_svc.domain.scaling.delayed_count import DelayedCount
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.scaling.home_roles import group_at_home, group_of, moved_bounds, moved_in_words
from scheduler_svc.domain.scaling.load_trend import LoadTrend
from scheduler_svc.domain.scaling.need import Need, is_idle, needed, shortage
from scheduler_svc.domain.scaling.parts import is_asked, parts_of
from scheduler_svc.domain.scaling.removal import removal_order
from scheduler_svc.domain.scaling.settings import ScalingSettings
from scheduler_svc.domain.scaling.signals import ScalingSignals
from scheduler_svc.domain.targets import Targets

#: Seconds for which the number of READY instances has to stay for its effect to be seen.
SETTLE_S = 45.0
_SERVING = (InstanceState.READY, InstanceState.SUSPECT)
_NOTHING = TokenCosts(prompt_s=0.0, output_s=0.0, context_s=0.0)


class Group:
    """Keeps what is needed to follow the load: its trend, the share that instances carry, and earlier wishes."""

    def __init__(self, model: str, role: InstanceRole, settings: ScalingSettings, now: float) -> None:
        self._model = model
        self._role = role
        self._settings = settings
        self._bounds = settings.bounds_of(model, role)
        self._trend = LoadTrend(settings.trend_s)
        self._carried = CarriedShare(settings.share, now)
        self._count: DelayedCount | None = None  # before the first look
        self._moved = 0  # instances that came from other roles less those that went, as of the last look; 0 while idle
        self._typical = _NOTHING  # of the instances that were READY last
        self._ready = 0
        self._ready_since = now

    def look(
        self,
        pool: Pool,
        roles: Collection[InstanceRole],
        targets: Callable[[Request], Targets],
        waiting_elsewhere: int,
        now: float,
    ) -> DesiredInstances:
        """Work out the desired number.  ``roles``: those of all groups of the model.

        Need and delays are those of the instances that work in the role; the result is that of the executors started
        for it.  While nobody asks for the model it does not matter who works in which role: each goes to its minimum.
        """
        instances = [i for i in pool.instances() if _is_of(i, self._role)]
        at_home = [i for i in pool.instances() if group_at_home(i) is self._role]
        serving = [i for i in instances if i.state in _SERVING and i.facts is not None]
        starting = [i for i in instances if i.state in STARTING]
        warm_up_s = pool.starts.mean_s or self._settings.warm_up_s
        if len(serving) != self._ready:
            self._ready, self._ready_since = len(serving), now
        signals = self._signals(pool, roles, targets, serving, starting, waiting_elsewhere, warm_up_s, now)
        carried = signals.load / len(serving) if serving else 1.0
        share = self._carried.learn(carried, now, short=signals.settled and bool(shortage(signals, self._settings)))
        home = _present(at_home)
        self._move(0 if is_idle(signals, self._settings) else _present(instances) - home)
        bounds = moved_bounds(self._bounds, self._moved)
        need = needed(signals, share, bounds, self._settings)
        count = self._delayed(need.count, bounds.clamp(home + self._moved), warm_up_s, now)
        return self._desired(need, count, signals, at_home, warm_up_s)

    def _desired(
        self, need: Need, count: DelayedCount, signals: ScalingSignals, at_home: Sequence[Instance], warm_up_s: float
    ) -> DesiredInstances:
        """Build the result, of the executors that were started for the role: ``at_home``."""
        serving = [i for i in at_home if i.state in _SERVING and i.facts is not None]
        starting = [i for i in at_home if i.state in STARTING]
        prices = [i.spec.price_per_hour for i in (*serving, *starting)]
        desired = max(0, count.count - self._moved)
        return DesiredInstances(
            model=self._model,
            role=self._role,
            desired=desired,
            ready=len(serving),
            starting=len(starting),
            bounds=self._bounds,
            reason=need.reason + _delay_in_words(need.count, count.count) + moved_in_words(self._moved),
            since=count.since,
            load=signals.load,
            forecast=signals.forecast,
            warm_up_s=warm_up_s,
            price_per_hour=desired * math.fsum(prices) / len(prices) if prices else 0.0,
            remove_first=tuple(i.instance_id for i in removal_order(starting, serving)),
        )

    def _move(self, moved: int) -> None:
        """Take how many instances came from other roles less those that went; the desired result stays the same."""
        if self._count is not None:
            self._count.shift(moved - self._moved)
        self._moved = moved

    def _delayed(self, wanted: int, present: int, warm_up_s: float, now: float) -> DelayedCount:
        """Enter what is wanted now, and return the number that follows it.

        ``present``: instances there are, within the bounds.
        """
        if self._count is None:
            self._count = DelayedCount(present, now)
        up_delay_s, down_delay_s = self._settings.up_delay_s, max(self._settings.down_delay_s, warm_up_s)
        self._count.wish(wanted, now, up_delay_s=up_delay_s, down_delay_s=down_delay_s, present=present)
        return self._count

    def _signals(
        self,
        pool: Pool,
        roles: Collection[InstanceRole],
        targets: Callable[[Request], Targets],
        serving: Sequence[Instance],
        starting: Sequence[Instance],
        waiting_elsewhere: int,
        warm_up_s: float,
        now: float,
    ) -> ScalingSignals:
        asked = is_asked(self._role, {i.role for i in pool.instances() if i.live})
        load, strengths = self._load(pool, roles, serving, now) if asked else (0.0, (1.0,) * len(serving))
        self._trend.add(load, now)
        lead_s = warm_up_s + self._settings.up_delay_s + self._settings.interval_s
        capacity = sum(i.account.capacity for i in serving)
        free = sum(min(i.account.capacity, max(0, i.account.free_tokens)) for i in serving)
        return ScalingSignals(
            load=load,
            forecast=self._trend.forecast(lead_s),
            lead_s=lead_s,
            strengths=strengths,
            starting=len(starting),
            settled=now - self._ready_since >= SETTLE_S,
            waiting=waiting_elsewhere + (len(pool.queue) if pool.queue is not None else 0) if asked else 0,
            running=sum(i.account.live for i in (pool.instances() if asked else serving)),
            idle_s=pool.load.idle_s(now) if asked else math.inf,
            wait_share=_wait_share(pool, targets, now) if asked else 0.0,
            late_share=pool.trouble.late_share(now) if asked else 0.0,
            turned_away=pool.trouble.recently_turned_away(now) if asked else 0.0,
            kv_use=1 - free / capacity if capacity else 0.0,
        )

    def _load(
        self, pool: Pool, roles: Collection[InstanceRole], serving: Sequence[Instance], now: float
    ) -> tuple[float, tuple[float, ...]]:
        """Return the load in instances of mean strength, and the strengths, cheapest for what they do first."""
        rates = pool.load.rates(now)
        prompts, outputs = parts_of(self._role, roles, pool.split_share.value)

        def taken(costs: TokenCosts) -> float:
            return prompts * costs.prefill_of(rates) + outputs * costs.decode_of(rates)

        units = [(taken(TokenCosts.of(i.account)), i.spec.price_per_hour) for i in serving]
        if not units or not all(unit for unit, _ in units):
            return taken(self._typical), (1.0,) * len(units)
        self._typical = _mean_costs([TokenCosts.of(i.account) for i in serving])
        served = math.fsum(1 / unit for unit, _ in units)
        ranked = sorted(units, key=lambda each: (each[0] * each[1], each[1]))
        return len(units) / served, tuple(len(units) / (unit * served) for unit, _ in ranked)


def _mean_costs(costs: Sequence[TokenCosts]) -> TokenCosts:
    n = len(costs)
    return TokenCosts(
        prompt_s=math.fsum(c.prompt_s for c in costs) / n,
        output_s=math.fsum(c.output_s for c in costs) / n,
        context_s=math.fsum(c.context_s for c in costs) / n,
    )


def _is_of(instance: Instance, role: InstanceRole) -> bool:
    return group_of(instance.role) is role


def _present(instances: Sequence[Instance]) -> int:
    return sum(i.state in STARTING or (i.state in _SERVING and i.facts is not None) for i in instances)


def _wait_share(pool: Pool, targets: Callable[[Request], Targets], now: float) -> float:
    """Return the largest share of its TTFT target that a request has waited, or is predicted to wait in all."""
    shares = [0.0]
    if pool.queue is None:
        return 0.0
    for oldest, youngest in pool.queue.ends_of_classes():
        for each, more_s in ((oldest, 0.0), (youngest, predicted_wait(pool, youngest.request, now) or 0.0)):
            ttft_s = targets(each.request).ttft_s
            if ttft_s is not None and not each.emitted_tokens and pool.queue.at_running_limit(each) is None:
                shares.append((now - each.enqueued_at + more_s) / ttft_s)
    return max(shares)


def _delay_in_words(wanted: int, desired: int) -> str:
    if wanted > desired:
        return f"; {wanted} as soon as that has lasted"
    return f"; down to {wanted} if that lasts" if wanted < desired else ""
