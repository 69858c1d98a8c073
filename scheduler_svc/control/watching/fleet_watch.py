"""Snapshots of the fleet for clients that watch it.

Nothing is kept per watcher: each gets the snapshot that is current when it reads, so a slow watcher misses snapshots
instead of piling them up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from sage_common.clock import Clock
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.watching.fleet_statistics import FleetStatistics, RecentDecision, RecentFailover
from scheduler_svc.control.watching.rolling_counts import WINDOW_S, Counts, Stretch
from scheduler_svc.domain.errors import LimitReached
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.policies.policy import PolicySwitch
from scheduler_svc.domain.queue import QueueView
from scheduler_svc.domain.scheduler import Scheduler

WATCHERS_LIMIT = 32
"""Clients that may watch at the same time; the next is refused."""

WATCHERS_PER_CLIENT = 8
"""Most of them that one client may have, so that one cannot take all places."""

FRESH_S = 0.1
"""Seconds for which all watchers share one snapshot."""

LATEST_S = 10.0
"""Seconds over which rates are averaged."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FleetSnapshot:
    """The fleet at one moment.

    ``instances`` are the scheduler's own objects: read them before anything else happens.
    """

    taken_at: float  # seconds on the control clock
    uptime_s: float
    policy: str
    delegate: str  # the policy that the one in force follows now; else empty
    latest_switch: PolicySwitch | None
    instances: tuple[Instance, ...]  # by id
    queues: Mapping[str, QueueView]  # by model
    running: int  # requests placed, not ended
    waiting: int  # requests, over all models
    latest: Stretch
    recent: Stretch
    since_start: Stretch
    history: Sequence[Counts]  # of stretches of BUCKET_S that are over, oldest first
    decisions: tuple[RecentDecision, ...]  # newest first
    failovers: tuple[RecentFailover, ...]  # newest first


class FleetWatch:
    """Takes snapshots of the fleet."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        statistics: FleetStatistics,
        *,
        limit: int = WATCHERS_LIMIT,
        per_client: int = WATCHERS_PER_CLIENT,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._statistics = statistics
        self._limit = limit
        self._per_client = per_client
        self._latest: FleetSnapshot | None = None
        self._by_client: Counter[str] = Counter()

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return self._by_client.total()

    async def snapshots(self, interval_s: float, *, client: str) -> AsyncGenerator[FleetSnapshot, None]:
        """Yield a snapshot now, and another one every ``interval_s`` seconds, for ever.

        Raises LimitReached where too many watch already, or too many of this ``client``.
        """
        if self.watchers >= self._limit:
            raise LimitReached("watchers of the fleet", self._limit)
        if self._by_client[client] >= self._per_client:
            raise LimitReached("watchers of the fleet for one client", self._per_client)
        self._by_client[client] += 1
        try:
            while True:
                yield self.snapshot()
                await self._clock.sleep(interval_s)
        finally:
            self._by_client[client] -= 1
            self._by_client += Counter()  # drops clients without a watcher

    def snapshot(self) -> FleetSnapshot:
        """Return the latest snapshot if it is fresh, else take one."""
        now = self._clock.now()
        if self._latest is None or now - self._latest.taken_at >= FRESH_S:
            self._latest = self._take(now)
        return self._latest

    def _take(self, now: float) -> FleetSnapshot:
        scheduler, statistics = self._scheduler, self._statistics
        queues = scheduler.queues()
        waiting = sum(queue.waiting for queue in queues.values())
        since_start = statistics.counts.since_start(now)
        return FleetSnapshot(
            taken_at=now,
            uptime_s=since_start.span_s,
            policy=scheduler.policy,
            delegate=scheduler.delegate,
            latest_switch=scheduler.switches[-1] if scheduler.switches else None,
            instances=tuple(scheduler.instances()),
            queues=queues,
            running=max(0, len(self._requests) - waiting),
            waiting=waiting,
            latest=statistics.counts.last(LATEST_S, now),
            recent=statistics.counts.last(WINDOW_S, now),
            since_start=since_start,
            history=statistics.counts.history(now),
            decisions=tuple(reversed(statistics.decisions)),
            failovers=tuple(reversed(statistics.failovers)),
        )
