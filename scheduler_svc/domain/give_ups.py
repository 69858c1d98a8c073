"""Gives up waiting requests that can no longer be served in time, or waited as long as their class may."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.cached_tokens import cached_column
from scheduler_svc.domain.errors import DeadlineExceeded, Overloaded, SchedulerError
from scheduler_svc.domain.expected_wait import predicted_wait
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest

#: Waiting requests of one model that are judged in one sweep at most.
SWEEP_LIMIT = 512
_GARBAGE_FLOOR = 64
_AGAIN_S = 1.0  # between two judgements of a request while no instance is READY


class GiveUps:
    """The waiting requests that are given up at some time, by model."""

    def __init__(self, settings: SchedulerSettings, prefixes: CachedPrefixes) -> None:
        self._settings = settings
        self._prefixes = prefixes
        self._models: dict[str, _ModelGiveUps] = {}  # of models whose queue is in use

    def add(self, waiting: WaitingRequest, queue_length: int) -> None:
        """Remember when to judge a request that waits now, in a queue of ``queue_length``."""
        model = waiting.request.model
        if model not in self._models:
            self._models[model] = _ModelGiveUps(self._settings, self._prefixes)
        self._models[model].add(waiting, queue_length)

    def due(self, pools: Iterable[Pool], now: float) -> list[tuple[RequestKey, SchedulerError]]:
        """Return the requests to end now, with their errors; looks at ``SWEEP_LIMIT`` of each model at most.

        ``pools``: of all models that there are; the others are forgotten.
        """
        found: list[tuple[RequestKey, SchedulerError]] = []
        models, self._models = self._models, {}
        for pool in pools:
            if (give_ups := models.get(pool.model)) is not None:
                self._models[pool.model] = give_ups
                found += give_ups.due(pool, now)
        return found


class _ModelGiveUps:
    """The waiting requests of one model that are given up at some time, the soonest first.

    Only requests with a stated deadline, or of a class whose wait is bounded, are in it.
    """

    def __init__(self, settings: SchedulerSettings, prefixes: CachedPrefixes) -> None:
        self._settings = settings
        self._prefixes = prefixes
        self._due: list[tuple[float, int, WaitingRequest]] = []

    def add(self, waiting: WaitingRequest, queue_length: int) -> None:
        """Remember when to judge a request that waits now."""
        at = self._wait_ends_at(waiting)
        if waiting.request.target_at is not None:
            at = min(at, _latest_start(waiting, _least_s(waiting)))
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
        if not (limits := self._settings.queue_wait_limit_s):
            return inf
        limit_s = limits.get(waiting.request.priority, 0.0)
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
