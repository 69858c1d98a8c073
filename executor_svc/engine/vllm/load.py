"""Adds up vLLM's statistics: load and iterations; and tells listeners when a step is over.

The stat logger of ``async_llm`` calls ``record`` on the event loop, once per output batch of the engine core, after the
batch's outputs are queued for their readers.  Its arguments are vLLM's ``SchedulerStats`` and ``IterationStats``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from executor_svc.engine.vllm.kv_connectors.connector import TransferCounts
from executor_svc.engine.vllm.step_means import TOGETHER, StepMeans
from executor_svc.runtime.engine_port import EngineLoad, Iteration

ITERATIONS_KEPT = 256
_LAST_STEP_S = 1.0
_LEFT_OVER = 1  # steps that still compute requests after these were aborted; one more where steps overlap


class VllmLoad:
    """The counters and the latest load of one engine."""

    def __init__(self) -> None:
        self.kv_capacity_tokens = 0  # known when the engine is up
        self.running = 0
        self.waiting = 0  # requests that do not run, blocked ones included
        self.blocked = 0  # requests that wait for a grammar or a KV transfer, not for capacity
        self.kv_used_tokens = 0
        self.prefix_queries_tokens = 0
        self.prefix_hits_tokens = 0
        self.generation_tokens = 0
        self.kv_pulls = 0
        self.kv_pulls_failed = 0
        self.kv_notices_failed = 0
        self.kv_leases_expired = 0
        self.count_transfers: Callable[[Mapping[str, Any]], TransferCounts] | None = (
            None  # set if there is a KV connector
        )
        self.on_failed_pulls: Callable[[int], None] = lambda count: None
        self.iterations = 0
        self._recent: deque[Iteration] = deque(maxlen=ITERATIONS_KEPT)
        self._means = StepMeans()
        self._left_over = 0  # steps to come that are not counted
        self._listeners: list[Callable[[], None]] = []
        self._awaiting: list[asyncio.Future[None]] = []  # resolved at the end of the current step
        self._last_record: float | None = None  # when the last step ended; None if nothing ran after it
        #: When the step ended whose statistics come next, by the engine core's clock; None where it does not say.
        self.step_ended_at: float | None = None

    def steps_overlap(self) -> None:
        """Note that the engine schedules a step while the one before runs: steps are reported as means of some."""
        self._means.together = TOGETHER

    async def forget_work(self, *, aborted: bool = False) -> None:
        """Count from here on: what ran so far was no request of anybody's.

        ``aborted``: its last requests were aborted.  Then the engine says in its next step that none runs: wait for
        that, a second at most.  What still runs then is not counted when it ends.
        """
        if aborted:
            await self._wait_until_idle()
        self.prefix_queries_tokens = self.prefix_hits_tokens = self.generation_tokens = self.iterations = 0
        self._recent.clear()
        self._means.clear()

    async def _wait_until_idle(self) -> None:
        try:
            async with asyncio.timeout(_LAST_STEP_S):
                while self.running or self.waiting:
                    await self.step_over()
        except TimeoutError:
            self._left_over = _LEFT_OVER + (self._means.together > 1)

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each step, when all its outputs were taken."""
        self._listeners.append(callback)

    async def step_over(self) -> None:
        """Wait until the next step is recorded, even if it computed nothing."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaiting.append(over)
        await over

    def snapshot(
        self,
        *,
        unfinished: int,
        prompt_tokens_total: int,
        gpu_memory_used_bytes: int | None,
        known_wait: str | None = None,
        submissions: Mapping[str, int] | None = None,
    ) -> EngineLoad:
        """Return the load as of the latest step, with what the engine itself knows of it."""
        return EngineLoad(
            running=self.running,
            waiting=self.waiting,
            unfinished=unfinished,
            kv_used_tokens=self.kv_used_tokens,
            prefix_queries_tokens=self.prefix_queries_tokens,
            prefix_hits_tokens=self.prefix_hits_tokens,
            prompt_tokens_total=prompt_tokens_total,
            generation_tokens_total=self.generation_tokens,
            iterations=self.iterations,
            known_wait=known_wait,
            gpu_memory_used_bytes=gpu_memory_used_bytes,
            kv_pulls=self.kv_pulls,
            kv_pulls_failed=self.kv_pulls_failed,
            kv_leases_expired=self.kv_leases_expired,
            submissions={} if submissions is None else submissions,
        )

    def take_iterations(self) -> Sequence[Iteration]:
        """Return the iterations since the last call, oldest first, at most the latest 256; or means of some each."""
        taken = list(self._recent)
        self._recent.clear()
        return taken

    def record(self, scheduler_stats: Any | None, iteration_stats: Any | None) -> None:
        """Record the statistics of one output batch."""
        counts = not self._left_over
        if iteration_stats is not None and counts:
            self.generation_tokens += iteration_stats.num_generation_tokens
        if scheduler_stats is not None:
            self._left_over -= not counts
            self._take_snapshot(scheduler_stats, counts=counts)
        for over in self._awaiting:
            if not over.done():
                over.set_result(None)
        self._awaiting.clear()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.call_soon(listener)  # runs after the readers of this batch, which were woken first

    def _take_snapshot(self, stats: Any, *, counts: bool) -> None:
        now = self.step_ended_at if self.step_ended_at is not None else time.monotonic()
        self.running = stats.num_running_reqs
        self.blocked = stats.num_skipped_waiting_reqs
        self.waiting = stats.num_waiting_reqs + self.blocked
        self.kv_used_tokens = round(stats.kv_cache_usage * self.kv_capacity_tokens)
        prefix = stats.prefix_cache_stats
        if prefix is not None and counts:
            self.prefix_queries_tokens += prefix.queries
            self.prefix_hits_tokens += prefix.hits
        if self.count_transfers is not None and stats.kv_connector_stats:
            self._count(self.count_transfers(stats.kv_connector_stats))
        details = stats.iteration_details
        if details is not None and not details.is_dummy and counts:
            self._note_iteration(details, now)
        self._last_record = now if self.running else None

    def _count(self, counts: TransferCounts) -> None:
        self.kv_pulls += counts.pulls
        self.kv_pulls_failed += counts.failed
        self.kv_notices_failed += counts.notices_failed
        self.kv_leases_expired += counts.expired
        if counts.failed:
            self.on_failed_pulls(counts.failed)

    def _note_iteration(self, details: Any, now: float) -> None:
        self.iterations += 1
        elapsed_s = details.elapsed_ms / 1000.0
        if self._last_record is not None:
            elapsed_s = now - self._last_record  # steps without a pause: the real time per step, with overlapping work
        step = Iteration(
            index=self.iterations,
            prefill_tokens=details.num_ctx_tokens,
            decode_tokens=details.num_generation_tokens,
            running=details.num_ctx_requests + details.num_generation_requests,
            kv_used_tokens=self.kv_used_tokens,
            elapsed_s=elapsed_s,
        )
        mean = self._means.add(step)
        if mean is not None:
            self._recent.append(mean)
