"""What happens where capacity does not suffice: who is refused, who makes room, who is given up while waiting."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from math import inf

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.cached_tokens import cached_column
from scheduler_svc.domain.errors import DeadlineExceeded, Overloaded, SchedulerError
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.request import Request, RequestKey
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest

#: Waiting requests of one model that are judged in one sweep at most.
SWEEP_LIMIT = 512
_GARBAGE_FLOOR = 64
_AGAIN_S = 1.0  # between two judgements of a request while no instance is READY


def predicted_wait(pool: Pool | None, request: Request, now: float) -> float | None:
    """Predict seconds until a request is placed that is new, or waits as the youngest of its class and tenant.

    By its class, its tenant's share and running limit, and the rate at which the queue drains.  None where nothing is
    known: no instance is READY, or no request has ended yet.
    """
    if pool is None or pool.queue is None or not pool.accounts or not pool.knows_service:
        return None
    queue = pool.queue
    itself = 1 if request.key in queue else 0
    own_s = turns_s(pool, request, now)
    if queue.placeable <= itself and any(a.prompt_limit > 0 for a in pool.accounts):
        return own_s
    ahead = max(0, queue.ahead_of_new(request.priority, request.key.tenant) - itself)
    return max(own_s, pool.drain.wait_s(ahead, pool.placement_s(now), request.priority, now))


def turns_s(pool: Pool | None, request: Request, now: float) -> float:
    """Predict seconds until the running limit of a request's tenant lets it run; 0 without one."""
    if pool is None or pool.queue is None:
        return 0.0
    return pool.queue.turns_of_tenant(request) * pool.service_s(now)


def _least_wait(pool: Pool, request: Request, now: float) -> float:
    """Predict seconds that a new request waits at least: those surely ahead of it need more slots than are free.

    What keeps out prompts or fills KV caches may end at any moment, so it counts for nothing.
    """
    assert pool.queue is not None
    accounts = {a.instance_id: a for side in (pool.accounts, pool.decoders) for a in side}.values()
    slots = sum(a.max_running for a in accounts)
    free = sum(max(0, a.free_slots) for a in accounts)
    return max(0, pool.queue.surely_ahead_of_new(request) - free) * pool.service_s(now) / slots


def hopeless(pool: Pool, request: Request, now: float) -> Overloaded | None:
    """Return the refusal of a request whose deadline is over before it would be placed; None if it may be met."""
    if request.deadline_at is None:
        return None
    left_s = request.deadline_at - now
    predicted_s = predicted_wait(pool, request, now)
    if predicted_s is None or predicted_s <= left_s:
        return None
    wait_s = _least_wait(pool, request, now)
    if wait_s <= left_s:
        return None
    why = f"the deadline, in {left_s:.1f} s, cannot be met: {wait_s:.1f} s in the queue are predicted"
    return Overloaded(why, cause="deadline", expected_wait_s=wait_s - left_s)


def make_room(queue: ModelQueue, request: Request, now: float) -> WaitingRequest | None:
    """Take a request out of a full queue, so that another may wait, and return it; None if it has to be refused.

    The youngest of the lowest class goes, if that is below the newcomer's.  Where all are of the newcomer's class, the
    youngest of the tenant that has most requests for its weight goes, if it has more than the newcomer's tenant would
    have.  A request that has a token never goes.
    """
    victim = queue.youngest_below(request.priority)
    if victim is None:
        victim = queue.youngest_beyond_share(request.priority, request.key.tenant)
    if victim is not None:
        queue.withdraw(victim.request.key, now)
    return victim


class GiveUps:
    """The waiting requests of one model that are given up at some time, the soonest first.

    Only requests with a stated deadline, or of a class whose wait is bounded, are in it.
    """

    def __init__(self, settings: SchedulerSettings, prefixes: CachedPrefixes) -> None:
        self._settings = settings
        self._prefixes = prefixes
        self._due: list[tuple[float, int, WaitingRequest]] = []

    def add(self, waiting: WaitingRequest, queue_length: int) -> None:
        """Remember when to judge a request that waits now."""
        at = min(self._wait_ends_at(waiting), _latest_start(waiting, _least_s(waiting)))
        if at < inf:
            heapq.heappush(self._due, (at, waiting.number, waiting))
            if len(self._due) > 2 * queue_length + _GARBAGE_FLOOR:
                self._due = [each for each in self._due if each[2].number == each[1]]
                heapq.heapify(self._due)

    def due(self, pool: Pool, now: float) -> Iterator[tuple[RequestKey, SchedulerError]]:
        """Return the requests to end now, with their errors; looks at ``SWEEP_LIMIT`` of them at most."""
        for _ in range(SWEEP_LIMIT):
            if not self._due or self._due[0][0] > now:
                return
            _, number, waiting = heapq.heappop(self._due)
            if waiting.number != number:
                continue
            error, again_at = self._judge(waiting, pool, now)
            if error is not None:
                yield waiting.request.key, error
            elif again_at < inf:
                heapq.heappush(self._due, (max(again_at, now), number, waiting))

    def _judge(self, waiting: WaitingRequest, pool: Pool, now: float) -> tuple[SchedulerError | None, float]:
        """Return why a request ends now, or when to judge it again."""
        wait_ends_at = self._wait_ends_at(waiting)
        if wait_ends_at <= now:
            request = waiting.request
            limit_s = wait_ends_at - request.arrived_at
            why = f"it waited for {limit_s:.1f} s, the limit of class {request.priority.name}"
            wait_s = predicted_wait(pool, request, now) or limit_s
            return Overloaded(why, cause="queue_wait", expected_wait_s=wait_s), inf
        if not pool.accounts:
            return None, min(wait_ends_at, now + _AGAIN_S)
        least_s = min(
            _least_s_on(a.pace.prefill_token_s * tokens, a.pace.base_s, waiting)
            for a, tokens in zip(pool.accounts, self._computed_tokens(waiting, pool.accounts), strict=True)
        )
        latest = _latest_start(waiting, least_s)
        if latest < now:
            return DeadlineExceeded(f"in the queue: {least_s:.2f} s at least were needed to meet it"), inf
        return None, min(wait_ends_at, latest + 1e-3)

    def _computed_tokens(self, waiting: WaitingRequest, accounts: Sequence[Account]) -> list[float]:
        """Return for each account how many tokens of the prompt its cache is not believed to hold."""
        prompt = waiting.prompt_tokens
        if not self._prefixes.knows(waiting.request):
            return [prompt * a.uncached_share for a in accounts]
        cached = self._prefixes.cached_tokens(waiting.request, prompt)
        tokens: list[float] = (prompt - cached_column(cached, accounts)).tolist()
        return tokens

    def _wait_ends_at(self, waiting: WaitingRequest) -> float:
        """Return when the request's wait is over; never for one that was accepted by an engine before."""
        limit_s = self._settings.queue_wait_limit_s.get(waiting.request.priority, 0.0)
        return waiting.request.arrived_at + limit_s if limit_s and not waiting.resumed else inf


def _latest_start(waiting: WaitingRequest, least_s: float) -> float:
    """Return when a request has to start at the latest; a default deadline only bounds its life."""
    target_at = waiting.request.target_at
    return target_at - least_s if target_at is not None else inf


def _least_s(waiting: WaitingRequest) -> float:
    return _least_s_on(waiting.pace.prefill_token_s * waiting.prompt_tokens, waiting.pace.base_s, waiting)


def _least_s_on(prefill_s: float, base_s: float, waiting: WaitingRequest) -> float:
    """Return the seconds that a request needs at least: its prefill, and a step for each token that is certain."""
    sampling = waiting.request.sampling
    certain = sampling.max_tokens if sampling.ignore_eos else max(1, sampling.min_tokens)
    return prefill_s + base_s * max(1, certain - waiting.emitted_tokens)
