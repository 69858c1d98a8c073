"""The tenants whose requests of one class wait, and which of them is next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from scheduler_svc.domain.shares.flow import Entry, Flow, Offer
from scheduler_svc.domain.shares.settings import ShareSettings
from scheduler_svc.domain.shares.tenant_use import TenantUses
from scheduler_svc.domain.waiting_request import WaitingRequest

_GARBAGE_FLOOR = 64
_TENANTS_COMPARED = 256
#: Tenants without waiting or running requests that are remembered, because they were served more than others.
IDLE_LIMIT = 1_024


@dataclass(slots=True, kw_only=True, eq=False)
class Charge:
    """What an attempt was charged to its tenant."""

    group: ShareGroup
    flow: Flow
    activation: int  # of the flow, when it was charged
    output_tokens: int  # that were charged
    emitted_tokens: int  # of earlier attempts, which were charged with those

    def correct(self, output_tokens: int) -> None:
        """Charge what the request has generated over all attempts, in tokens, or is predicted to generate."""
        self.group.correct(self, max(0, output_tokens - self.emitted_tokens))

    def settle(self, own_tokens: int) -> None:
        """Charge the tokens that the attempt has generated; it is over."""
        self.group.settle(self, own_tokens)


class ShareGroup:
    """A virtual token counter for each tenant (Sheng et al., OSDI 2024); the smallest is next.

    A request adds its prompt and its predicted output to its tenant's counter when it is placed, and what was really
    generated corrects that.  A tenant that comes to wait is lifted to the smallest counter of those that wait, so what
    it did not use before counts for nothing.  Among equal counters the ordering's key decides.

    While one tenant is alone nothing is counted: there is nobody to compare it with.  Memory is bounded by the requests
    that wait and run, and ``IDLE_LIMIT``.
    """

    def __init__(self, settings: ShareSettings, uses: TenantUses, changed: Callable[[], None]) -> None:
        """Start without tenants; ``changed`` is called when one that was at its running limit may run more."""
        self._changed = changed
        self._settings = settings
        self._uses = uses
        self._offers: list[Offer] = []
        self._idle: list[tuple[float, str]] = []
        self._level = 0.0  # the counter of whoever was served last, before it was charged
        self._sole: Flow | None = None  # if there is only one flow
        self.flows: dict[str, Flow] = {}
        self.weight = 0.0  # of all tenants that wait
        self.count = 0  # requests that wait

    def add(self, waiting: WaitingRequest) -> None:
        """Let a request wait."""
        tenant = waiting.request.key.tenant
        flow = self.flows.get(tenant)
        if flow is None:
            flow = self._make(tenant)
        if not flow.count:
            self._activate(flow)
        flow.count += 1
        self.count += 1
        if flow.push(waiting) and self._sole is None:
            self._offer(flow)

    def renew(self, waiting: WaitingRequest) -> None:
        """Follow a change of a request's key."""
        flow = self.flows[waiting.request.key.tenant]
        if flow.push(waiting) and self._sole is None:
            self._offer(flow)

    def remove(self, waiting: WaitingRequest) -> None:
        """Note that a request left the order; its number is no longer that of its entry."""
        flow = self.flows[waiting.request.key.tenant]
        flow.left()
        self.count -= 1
        if not flow.count:
            self.weight = max(0.0, self.weight - flow.weight)
            flow.offer = None
            self._forget(flow)

    def first(self) -> WaitingRequest | None:
        """Return the request that is next in this class; None if there is none, or only of tenants at their limit."""
        sole = self._sole
        if sole is not None:
            return sole.first() if sole.use is None else self._unless_held(sole)
        offers = self._offers
        while offers:
            offer = offers[0]
            flow = offer[3]
            if flow.offer is offer:
                first = self._unless_held(flow)
                if first is not None and first.number == offer[2] and first.key == offer[1]:
                    return first
                flow.offer = None
                if first is not None:
                    self._offer(flow)
                    continue
            heapq.heappop(offers)
        return None

    def pop(self) -> Entry:
        """Take the request that ``first`` returned out of its heap; ``push_back`` or ``remove`` has to follow."""
        flow = self._sole if self._sole is not None else self._offers[0][3]
        return flow.pop()

    def count_provisionally(self, waiting: WaitingRequest) -> float:
        """Count a request as served, to see who would be next, and return what to take back with ``take_back``."""
        if self._sole is not None:
            return 0.0
        flow = self.flows[waiting.request.key.tenant]
        cost = self._cost(waiting, waiting.output_tokens) / flow.weight
        flow.counter += cost
        self._offer(flow)
        return cost

    def push_back(self, entry: Entry, counted: float) -> None:
        """Enter what ``pop`` took out, and take back what was counted for it."""
        flow = self.flows[entry[2].request.key.tenant]
        heapq.heappush(flow.heap, entry)
        flow.counter -= counted
        if self._sole is None:
            self._offer(flow)

    def served(self, waiting: WaitingRequest, output_tokens: int) -> Charge | None:
        """Charge a request that is placed, with its predicted output; None while its tenant is alone.

        Call it before the request is removed.
        """
        if self._sole is not None:
            return None
        flow = self.flows[waiting.request.key.tenant]
        self._level = max(self._level, flow.counter)
        flow.counter += self._cost(waiting, output_tokens) / flow.weight
        flow.charges += 1
        self._offer(flow)
        return Charge(
            group=self,
            flow=flow,
            activation=flow.activation,
            output_tokens=output_tokens,
            emitted_tokens=waiting.emitted_tokens,
        )

    def correct(self, charge: Charge, output_tokens: int) -> None:
        """Have a charge count the output tokens that there are."""
        flow = charge.flow
        by = (output_tokens - charge.output_tokens) * self._settings.output_token_weight
        charge.output_tokens = output_tokens
        flow.correct(by, charge.activation)
        if self._sole is None and flow.count:
            self._offer(flow)

    def settle(self, charge: Charge, output_tokens: int) -> None:
        """Correct a charge by what was really generated; the attempt is over."""
        self.correct(charge, output_tokens)
        charge.flow.charges -= 1
        self._forget(charge.flow)

    def ahead_of(self, tenant: str, own: int) -> int:
        """Estimate how many requests of other tenants go before one that has ``own`` of its tenant's before it.

        Every request is taken to be as large as those of its tenant's first one.
        """
        mine = self.flows.get(tenant)
        start = mine.counter if mine is not None and mine.count else self._level
        weight = mine.weight if mine is not None else self._settings.of(tenant).weight
        size = self._size(mine)
        until = start + own * size / weight
        total = 0.0
        for flow in self.flows.values():
            if flow is not mine and flow.count:
                turns = (until - flow.counter) * flow.weight / (self._size(flow) or 1.0)
                total += min(flow.count, max(0.0, turns + 0.5))
        return int(total)

    def held_beside(self, tenant: str) -> int:
        """Count the waiting requests of other tenants at their running limit.  Looks at every tenant."""
        held = (f for f in self.flows.values() if f.use is not None and f.use.at_running_limit)
        return sum(flow.count for flow in held if flow.tenant != tenant)

    def ahead_of_new(self, tenant: str) -> int:
        """Estimate how many requests of this class go before a new one of a tenant: by weights, all equally large."""
        flow = self.flows.get(tenant)
        own = flow.count if flow is not None else 0
        weight = flow.weight if flow is not None else self._settings.of(tenant).weight
        others = self.weight - (weight if own else 0.0)
        return own + min(self.count - own, int((own + 1) * max(0.0, others) / weight))

    def beyond_share(self, tenant: str) -> str | None:
        """Return the tenant with most waiting requests for its weight, of a few hundred.

        None unless that is more than the named tenant would have with another request.
        """
        looked_at = (flow for flow, _ in zip(self.flows.values(), range(_TENANTS_COMPARED), strict=False))
        most = max(looked_at, key=lambda flow: flow.count / flow.weight, default=None)
        mine = self.flows.get(tenant)
        own = (mine.count if mine is not None else 0) + 1
        weight = mine.weight if mine is not None else self._settings.of(tenant).weight
        return most.tenant if most is not None and most.count / most.weight > own / weight else None

    def why_next(self, waiting: WaitingRequest) -> tuple[str, ...]:
        """Say why the tenant of a request is next; nothing where it is alone in its class."""
        if self._sole is not None:
            return ()
        flow = self.flows[waiting.request.key.tenant]
        return (f"its tenant's turn: weight {flow.weight:g}, {self._served(flow)}",)

    def share_of(self, tenant: str) -> str:
        """Say where a tenant stands among those that wait; empty where it is alone in its class."""
        flow = self.flows.get(tenant)
        if self._sole is not None or flow is None:
            return ""
        share = flow.weight / self.weight if self.weight else 1.0
        return f"its tenant's share of the class is {share:.1%}: weight {flow.weight:g}, {self._served(flow)}"

    def _served(self, flow: Flow) -> str:
        ahead = (flow.counter - self._offers[0][0]) * flow.weight if self._offers else 0.0
        return f"{max(0.0, ahead):.0f} weighted tokens ahead of who was served least"

    def _size(self, flow: Flow | None) -> float:
        first = flow.first() if flow is not None else None
        return self._cost(first, first.output_tokens) if first is not None else 0.0

    def reorder(self, all_waiting: Iterable[WaitingRequest]) -> None:
        """Follow new keys of all requests that wait in this class."""
        for flow in self.flows.values():
            flow.heap.clear()
        for waiting in all_waiting:
            self.flows[waiting.request.key.tenant].heap.append((waiting.key, waiting.number, waiting))
        for flow in self.flows.values():
            heapq.heapify(flow.heap)
            if self._sole is None:
                self._offer(flow)

    def resume(self, flow: Flow) -> None:
        """Let a tenant compete again that was at its running limit."""
        if self._sole is None and flow.count and self.flows.get(flow.tenant) is flow:
            self._offer(flow)
        self._changed()

    def _cost(self, waiting: WaitingRequest, output_tokens: int) -> float:
        # A resumed request was charged for its prompt before: that it has to be computed again is our doing.
        prompt = 0 if waiting.resumed else waiting.prompt_tokens
        settings = self._settings
        return prompt * settings.prompt_token_weight + output_tokens * settings.output_token_weight

    def _make(self, tenant: str) -> Flow:
        flow = Flow(tenant, self._settings.of(tenant).weight)
        self.flows[tenant] = flow
        sole, self._sole = self._sole, None
        if len(self.flows) == 1:
            self._sole = flow
        elif sole is not None and sole.count:
            self._offer(sole)
        return flow

    def _activate(self, flow: Flow) -> None:
        """Lift a tenant that comes to wait to the smallest counter of those that wait."""
        self.weight += flow.weight
        flow.activation += 1
        flow.use = self._uses.find(flow.tenant)
        if self._sole is None:
            self.first()  # drops what is out of date
            floor = self._offers[0][0] if self._offers else self._level
            flow.slack = flow.counter - floor
            flow.counter = max(flow.counter, floor)

    def _unless_held(self, flow: Flow) -> WaitingRequest | None:
        use = flow.use
        if use is not None and use.at_running_limit:
            use.held[flow] = partial(self.resume, flow)
            return None
        return flow.first()

    def _offer(self, flow: Flow) -> None:
        """Have a flow compete with the counter and the first request that it has now."""
        first = flow.first()
        if first is None:
            flow.offer = None
            return
        flow.offer = (flow.counter, first.key, first.number, flow)
        heapq.heappush(self._offers, flow.offer)
        if len(self._offers) > 2 * len(self.flows) + _GARBAGE_FLOOR:
            self._offers = [each.offer for each in self.flows.values() if each.offer is not None]
            heapq.heapify(self._offers)

    def _forget(self, flow: Flow) -> None:
        """Forget a tenant that neither waits nor runs, unless it was served more than others."""
        if flow.count or flow.charges or self.flows.get(flow.tenant) is not flow:
            return
        if flow is self._sole or flow.counter <= self._level:
            self._drop(flow)
        else:
            heapq.heappush(self._idle, (flow.counter, flow.tenant))
        while self._idle and (self._idle[0][0] <= self._level or len(self._idle) > IDLE_LIMIT):
            counter, tenant = heapq.heappop(self._idle)
            idle = self.flows.get(tenant)
            if idle is not None and not idle.count and not idle.charges and idle.counter == counter:
                self._drop(idle)

    def _drop(self, flow: Flow) -> None:
        del self.flows[flow.tenant]
        self._sole = None
        if len(self.flows) <= 1:
            self._offers.clear()
            for sole in self.flows.values():
                sole.offer = None
                self._sole = sole
