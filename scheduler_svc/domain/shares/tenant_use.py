"""What a tenant with limits uses, over all models."""

from __future__ import annotations

from collections.abc import Callable

from scheduler_svc.domain.errors import TenantLimitReached
from scheduler_svc.domain.shares.settings import ShareSettings, TenantSettings
from scheduler_svc.domain.waiting_request import WaitingRequest

#: Tenants that are remembered although they have no request, because they used up tokens of the last minute.
IDLE_LIMIT = 4_096
_MINUTE_S = 60.0


class TenantUse:
    """Counts a tenant's requests, and its tokens in a bucket that fills up within a minute.

    A request takes its tokens when it comes, so the bucket may be overdrawn by one request; until it is above 0 again,
    further ones are refused.
    """

    __slots__ = ("_filled_at", "_tokens", "held", "limits", "running", "tenant", "waiting")

    def __init__(self, tenant: str, limits: TenantSettings, now: float) -> None:
        self.tenant = tenant
        self.limits = limits
        self.waiting = 0
        self.running = 0
        # By flow that does not compete, because the tenant is at its running limit: what has it compete again.
        self.held: dict[object, Callable[[], None]] = {}
        self._tokens = float(limits.tokens_per_minute)
        self._filled_at = now

    @property
    def at_running_limit(self) -> bool:
        """Whether no further request of the tenant may run."""
        return 0 < self.limits.running_limit <= self.running

    def check(self, now: float, expected_wait_s: float, choices: int = 1) -> None:
        """Raise TenantLimitReached, which names the limit, where a new request is over one; each choice counts."""
        limits = self.limits
        if 0 < limits.waiting_limit < self.waiting + choices:
            raise TenantLimitReached(self.tenant, "waiting_limit", limits.waiting_limit, expected_wait_s)
        at_once = limits.refuses_at_running_limit and limits.running_limit
        if at_once and self.running + self.waiting + choices > limits.running_limit:
            raise TenantLimitReached(self.tenant, "running_limit", limits.running_limit, expected_wait_s)
        if limits.tokens_per_minute and (left := self.tokens(now)) <= 0:
            wait_s = (1 - left) * _MINUTE_S / limits.tokens_per_minute
            raise TenantLimitReached(self.tenant, "tokens_per_minute", limits.tokens_per_minute, wait_s)

    def tokens(self, now: float) -> float:
        """Return the tokens left in the bucket; negative if it is overdrawn."""
        most = self.limits.tokens_per_minute
        self._tokens = min(float(most), self._tokens + (now - self._filled_at) * most / _MINUTE_S)
        self._filled_at = now
        return self._tokens

    def take(self, tokens: int, now: float) -> None:
        """Take tokens out of the bucket; a negative number gives back."""
        if self.limits.tokens_per_minute:
            self._tokens = min(float(self.limits.tokens_per_minute), self.tokens(now) - tokens)

    def comes(self, waiting: WaitingRequest, now: float) -> None:
        """Count a request that waits now, and take its prompt and predicted output."""
        self.waiting += 1
        self.take(_tokens(waiting), now)

    def leaves(self, waiting: WaitingRequest, now: float) -> None:
        """Note that a request waits no more and was not placed; give its tokens back."""
        self.waiting -= 1
        self.take(-_tokens(waiting), now)

    def placed(self) -> None:
        """Note that a request that waited runs."""
        self.waiting -= 1
        self.running += 1

    def adopted(self) -> None:
        """Count a request that runs already; its prompt was taken by an earlier scheduler."""
        self.running += 1

    def ended(self) -> None:
        """Note that a request of the tenant no longer runs."""
        self.running -= 1
        if self.held and not self.at_running_limit:
            held, self.held = self.held, {}
            for resume in held.values():
                resume()

    def forgettable(self, now: float) -> bool:
        """Whether nothing is known about the tenant that a new entry would not say."""
        full = not self.limits.tokens_per_minute or self.tokens(now) >= self.limits.tokens_per_minute
        return not self.waiting and not self.running and full


def _tokens(waiting: WaitingRequest) -> int:
    # The prompt of a resumed request was taken before.
    return waiting.output_tokens + (0 if waiting.resumed else waiting.prompt_tokens)


class TenantUses:
    """The uses of all tenants that have limits; those without limits are not counted.

    Memory is bounded by the requests that wait and run, and ``IDLE_LIMIT``; beyond that the tenants that were idle
    longest are forgotten.
    """

    def __init__(self, settings: ShareSettings) -> None:
        self._settings = settings
        self._counts = settings.limited
        self._uses: dict[str, TenantUse] = {}  # the one that was idle longest first

    @property
    def counts(self) -> bool:
        """Whether any tenant has limits."""
        return self._counts

    def find(self, tenant: str) -> TenantUse | None:
        """Return a tenant's use; None if it has no limits, or has no request now."""
        return self._uses.get(tenant) if self._counts else None

    def of(self, tenant: str, now: float) -> TenantUse | None:
        """Return a tenant's use, made if need be; None if it has no limits."""
        if not self._counts:
            return None
        limits = self._settings.of(tenant)
        if not limits.limited:
            return None
        use = self._uses.get(tenant)
        if use is None:
            self._make_room(now)
            use = self._uses[tenant] = TenantUse(tenant, limits, now)
        return use

    def __len__(self) -> int:
        return len(self._uses)

    def rest(self, use: TenantUse, now: float) -> None:
        """Forget a tenant without requests, at once or when it is the one that was idle longest."""
        if use.waiting or use.running:
            return
        self._uses.pop(use.tenant, None)
        if not use.forgettable(now):
            self._uses[use.tenant] = use

    def _make_room(self, now: float) -> None:
        """Forget the first of those that may be forgotten, looking at few."""
        if len(self._uses) < IDLE_LIMIT:
            return
        for tenant in list(_first(self._uses, 16)):
            use = self._uses[tenant]
            if not use.waiting and not use.running:
                del self._uses[tenant]
            else:
                self._uses[tenant] = self._uses.pop(tenant)


def _first(uses: dict[str, TenantUse], count: int) -> list[str]:
    return [tenant for tenant, _ in zip(uses, range(count), strict=False)]
