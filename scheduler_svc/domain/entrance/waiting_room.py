"""The requests that wait: who comes in, who is given up, who leaves, and how long a wait is."""

from __future__ import annotations

from math import inf

from scheduler_svc.domain.capacity.figures import lowest
from scheduler_svc.domain.device_groups.member import ModelDemand
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.entrance.policy_control import PolicyControl
from scheduler_svc.domain.errors import NoInstance, Overloaded, QueueFull, SchedulerError
from scheduler_svc.domain.expected_wait import expected_wait, expected_wait_of
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.queue import ModelQueue, QueueView
from scheduler_svc.domain.request import Request, RequestKey
from scheduler_svc.domain.servability import why_refused
from scheduler_svc.domain.waiting_request import WaitingRequest
from scheduler_svc.domain.waiting_view import WaitingView, why_not_at_once, why_waiting


class WaitingRoom(PolicyControl):
    """Lets requests wait in their models' queues, or refuses them."""

    def admit(self, request: Request, now: float, *, accepted_before: bool = False) -> str:
        """Let a new request wait in its model's queue, or refuse it.

        ``accepted_before``: by an earlier scheduler, so that the limits at the door do not count.

        Returns what the request has to wait for, in words; empty if some instance can take it at once.

        Raises NoInstance (no instance can serve the request now; with ``wait_for_instance``: none ever can), QueueFull
        (with the expected wait), TenantLimitReached, Overloaded (its deadline is over before it is predicted to be
        placed), LimitReached (models), ValueError if the request waits already.  A request that another one made room
        for is in ``take_displaced``.
        """
        pool = self._registry.find_pool(request.model)
        refusal = why_refused(request, pool)
        if refusal is not None:
            raise NoInstance(request.model, refusal)
        ahead = why_not_at_once(pool)
        self.enqueue(request, now, accepted_before=accepted_before)
        return ahead

    def enqueue(
        self,
        request: Request,
        now: float,
        *,
        emitted_tokens: int = 0,
        excluded: frozenset[str] = frozenset(),
        resumed: bool = False,
        accepted_before: bool = False,
        whole: bool = False,
        alone: bool = False,
        identity: ModelIdentity | None = None,
    ) -> None:
        """Let a request wait, even if no instance can serve it; ``admit`` checks that first.

        ``emitted_tokens``: output tokens that earlier attempts delivered.  ``whole``: do not split the request.
        ``alone``: place it on an instance that runs nothing else (``share_instance`` ends that).  ``identity``: of the
        model that began its output, which has to continue it.
        A resumed request is let in even if the queue is full: it was accepted before, and there are at most as many of
        them as the fleet ran.  So is one with ``accepted_before``: an earlier scheduler's queue had room for it.  Of
        several choices the first finds room for all.
        Raises QueueFull, LimitReached (models), ValueError if the request waits already,
        PolicyFailed if the policy's code fails: then fifo is in force from now on.
        """
        pool = self._registry.pool(request.model)
        queue = pool.queue if pool.queue is not None else self._open_queue(pool, now)
        if request.key in self._queued:
            raise ValueError(f"request {request.key} waits already")
        if not (resumed or accepted_before or request.key.choice):
            self._check_door(request, pool, queue, now)
        waiting = WaitingRequest(
            request,
            enqueued_at=now,
            emitted_tokens=emitted_tokens,
            excluded=excluded,
            resumed=resumed,
            output_tokens=self._outputs.predict(request.model, request.sampling.max_tokens, emitted_tokens),
            pace=pool.pace(now),
            whole=whole,
            alone=alone,
            identity=identity,
        )
        try:
            queue.add(waiting, now)
        except Exception as error:
            raise self._policy_failed(error, now) from error
        self._queued[request.key] = queue
        self._give_ups.add(waiting, len(queue))
        self._note_arrival(waiting, pool, now)

    def _note_arrival(self, waiting: WaitingRequest, pool: Pool, now: float) -> None:
        """Count a request that waits now in the load of its model; a governor that has not decided yet does so."""
        request = waiting.request
        expected = self._outputs.mean(request.model, request.sampling.max_tokens, waiting.emitted_tokens)
        tpot_s = self._signals.targets_of(request).tpot_s
        lone_s = pool.accounts.figures.lone_token_s
        if tpot_s is None or expected <= 1 or (len(lone_s) and tpot_s < lowest(lone_s)):
            tpot_s = inf  # no number of instances keeps it
        pool.load.add(waiting.prompt_tokens, expected, now, tpot_target_s=tpot_s)
        if not waiting.resumed:
            pool.drain.arrived(request.priority, waiting.key, now)
            self._signals.arrived(request)
        if self._policy.begins(request.model):
            self._reconsider(pool, now)

    def _check_door(self, request: Request, pool: Pool, queue: ModelQueue, now: float) -> None:
        """Have the door refuse a request or find room for it, and count what is turned away.

        Raises TenantLimitReached, Overloaded, QueueFull.
        """
        try:
            self._door.check(request, pool, queue, now)
        except (Overloaded, QueueFull):
            pool.trouble.turned_away(request.choices, now)
            raise

    def _open_queue(self, pool: Pool, now: float) -> ModelQueue:
        """Make the queue of a model.  Raises PolicyFailed."""
        try:
            ordering = self._policy.acting(pool.model).ordering
        except Exception as error:  # the policy's code makes a governor for each model
            raise self._policy_failed(error, now) from error
        limit = self.settings.queue_limit_per_model
        queue = pool.queue = ModelQueue(pool.model, ordering, limit=limit, shares=self.settings.shares, uses=self._uses)
        return queue

    def take_displaced(self) -> list[tuple[RequestKey, Overloaded]]:
        """Return the requests that left a full queue since the last call, to make room for others."""
        return self._door.take_displaced()

    def given_up(self, now: float) -> list[tuple[RequestKey, SchedulerError]]:
        """Return the waiting requests to end now, with their errors.

        They can no longer meet a stated deadline, or waited as long as their class may.  Looks at ``SWEEP_LIMIT``
        requests of each model at most.
        """
        given_up = self._give_ups.due(self._registry.pools(), now)
        for key, _ in given_up:
            queue = self._queued.get(key)
            waiting = queue.find(key) if queue is not None else None
            if queue is not None and waiting is not None and not _is_over(waiting, now):
                self._note_turned_away(waiting, queue, now)
        return given_up

    def _note_turned_away(self, waiting: WaitingRequest, queue: ModelQueue, now: float) -> None:
        """Count a request that ends without a placement, unless it waited for its tenant's others to end."""
        if queue.at_running_limit(waiting) is None:
            self._registry.pool(queue.model).trouble.turned_away(1, now)

    def withdraw(self, key: RequestKey, now: float) -> bool:
        """Take a request out of its queue.  False if it does not wait."""
        queue = self._queued.pop(key, None)
        waiting = queue.withdraw(key, now) if queue is not None else None
        if queue is not None and waiting is not None and _is_over(waiting, now):
            self._note_turned_away(waiting, queue, now)
        return waiting is not None

    @property
    def tenants_counted(self) -> int:
        """How many tenants have a counter of what they use."""
        return len(self._uses)

    def demand(self, model: str, now: float) -> ModelDemand:
        """Return the requests of a model that wait; those that no READY instance can serve count only without one."""
        pool = self._registry.find_pool(model)
        if pool is None or pool.queue is None or (since := pool.queue.waits_since) is None:
            return ModelDemand()
        waiting = pool.queue.placeable if pool.accounts else len(pool.queue)
        return ModelDemand(waiting=waiting, waited_s=now - since)

    def waiting(self, model: str) -> int:
        """Count the requests of a model that wait."""
        pool = self._registry.find_pool(model)
        return len(pool.queue) if pool is not None and pool.queue is not None else 0

    def queues(self) -> dict[str, QueueView]:
        """Return a view of each queue, by model; models whose queue was never used are left out."""
        return {p.model: p.queue.view() for p in self._registry.pools() if p.queue is not None}

    def expected_wait(self, model: str, now: float) -> float:
        """Predict seconds until a request that comes now is placed, from the rate at which the queue drains.

        The prediction assumes that all requests run whole; split ones may be placed sooner.
        """
        return expected_wait(self._registry.find_pool(model), now)

    def expected_wait_of(self, request: Request, now: float) -> float:
        """Predict seconds until this request is placed, new or waiting as the youngest, by class and tenant."""
        return expected_wait_of(self._registry.find_pool(request.model), request, now)

    def position(self, key: RequestKey, now: float) -> WaitingView | None:
        """Say where a request stands in its queue and why it waits; None if it does not wait."""
        queue = self._queued.get(key)
        waiting = queue.find(key) if queue is not None else None
        if queue is None or waiting is None:
            return None
        pool = self._registry.pool(queue.model)
        policy = self._policy.acting(pool.model)
        demand = self._placer.demand(waiting, policy)
        plan = self._placer.plan_split(waiting, demand, PassContext(pool, policy, now))
        return WaitingView(
            position=queue.position(waiting),
            ordering_key="; ".join(
                filter(None, (policy.ordering.describe(waiting, now), queue.order.share_of(waiting)))
            ),
            because=why_waiting(waiting, Offer.for_whole(demand, pool), plan, pool, queue, now),
        )


def _is_over(waiting: WaitingRequest, now: float) -> bool:
    """Whether a request's deadline has passed."""
    deadline_at = waiting.request.deadline_at
    return deadline_at is not None and deadline_at <= now
