"""The scheduling passes over the queues."""

from __future__ import annotations

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.entrance.policy_control import PolicyControl
from scheduler_svc.domain.errors import PolicyFailed
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.waiting_request import WaitingRequest


class Passes(PolicyControl):
    """Runs a pass over each queue where something changed."""

    def schedule(self, now: float) -> list[Decision]:
        """Place all requests that can be placed, at most ``max_decisions_per_pass``; then ``more`` is True.

        A model is looked at only if its queue or its instances changed since the last pass.  Models take turns to be
        first.  If the policy's code fails, fifo is in force from then on; see ``take_policy_failures``.
        """
        self.tick(now)
        self.more = False
        decisions: list[Decision] = []
        for pool in self._pools_in_turn():
            left = self.settings.max_decisions_per_pass - len(decisions)
            decisions += self._schedule_model(pool, now, left)
            if len(decisions) >= self.settings.max_decisions_per_pass:
                pool.changed = self.more = True
                break
        return decisions

    def _pools_in_turn(self) -> list[Pool]:
        pools = [p for p in self._registry.pools() if p.queue and (p.changed or p.queue.changed)]
        self._passes += 1
        if len(pools) < 2:
            return pools
        first = self._passes % len(pools)
        return pools[first:] + pools[:first]

    def _schedule_model(self, pool: Pool, now: float, budget: int) -> list[Decision]:
        queue = pool.queue
        assert queue is not None, "only pools with a queue are scheduled"
        pool.changed = queue.changed = False
        context = PassContext(pool, self._policy.acting(pool.model), now)
        result = self._pass.run(queue, context, budget=budget)
        pool.drain.passed(len(result.decisions), queue.placeable, now)
        for decision in result.decisions:
            del self._queued[decision.key]
            if self._uses.counts:
                self._charges.placed(decision.attempt_number, decision.key.tenant, decision.prediction.output_tokens)
        for attempt_number, charge in result.charges:
            self._charges.charged(attempt_number, charge)
        if result.failed is not None:
            self._take_out(*result.failed, now)
        if result.more or result.failed is not None:
            pool.changed = self.more = True
        return result.decisions

    def _take_out(self, waiting: WaitingRequest, error: Exception, now: float) -> None:
        """Let a request end for which the policy's code raised an error; it has left its queue."""
        del self._queued[waiting.request.key]
        failed = self._policy_failed(error, now)
        failed.__cause__ = error
        self._failures.append((waiting.request.key, failed))

    def take_policy_failures(self) -> list[tuple[RequestKey, PolicyFailed]]:
        """Return the requests that left their queue since the last call, because the policy's code failed for them."""
        failures, self._failures = self._failures, []
        return failures
