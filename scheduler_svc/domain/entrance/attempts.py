"""What happens to attempts once they are placed."""

from __future__ import annotations

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.entrance.policy_control import PolicyControl
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.prediction.output_length import Coverage
from scheduler_svc.domain.request import Request
from scheduler_svc.domain.waiting_request import WaitingRequest


class Attempts(PolicyControl):
    """Updates reservations and charges with what happens to attempts."""

    def adopt(self, request: Request, instance_id: str, emitted_tokens: int, policy: str, now: float) -> Decision:
        """Reserve capacity for a request that an earlier scheduler placed on an instance, where it runs.

        ``emitted_tokens``: output tokens so far.  ``policy``: that placed it.  Raises InstanceNotFound, PolicyFailed,
        ValueError if the instance's engine is not known yet.
        """
        instance = self._registry.get(instance_id)
        pool = self._registry.pool_of(instance)
        if instance.facts is None:
            raise ValueError(f"the engine of {instance_id} is not known yet")
        waiting = WaitingRequest(
            request,
            enqueued_at=now,
            emitted_tokens=emitted_tokens,
            excluded=frozenset(),
            resumed=True,
            output_tokens=0,
            pace=pool.pace(now),
        )
        try:
            acting = self._policy.acting(pool.model)
        except Exception as error:  # the policy's code makes a governor for each model
            raise self._policy_failed(error, now) from error
        decision = self._placer.adopt(waiting, instance.account, policy, PassContext(pool, acting, now))
        self._charges.adopted(decision.attempt_number, request.key.tenant, now)
        return decision

    def share_instance(self, attempt_number: int) -> None:
        """Open the instance of a quarantined request's attempt to other requests again."""
        reservation = self._ledger.find(attempt_number)
        instance = self._registry.find(reservation.instance_id) if reservation is not None else None
        if instance is not None:
            pool = self._registry.pool_of(instance)
            if pool.isolation.account is instance.account:
                pool.isolation.open()
            pool.changed = True

    def assigned(self, attempt_number: int, assign_number: int) -> bool:
        """Note the number of an attempt's Assign in its session; False if the attempt is over.

        Heartbeats refer to it: ``LoadReport.last_assign`` says which attempts their figures include.
        """
        return self._attempts.assigned(attempt_number, assign_number)

    def first_token(self, attempt_number: int, now: float) -> None:
        """Note an attempt's first token.  Later calls change nothing."""
        self._attempts.first_token(attempt_number, now)

    def progress(self, attempt_number: int, tokens: int) -> None:
        """Note that a request has ``tokens`` output tokens now, over all attempts.

        A reservation that turns out too small grows, and covers the next ``PROGRESS_TOKENS`` as well: so it is enough
        to call this when the request has more tokens than were reserved, and every so many tokens from then on.
        """
        self._attempts.progress(attempt_number, tokens)
        self._charges.correct(attempt_number, tokens)

    def release(self, attempt_number: int, now: float, *, output_tokens: int | None, finished: bool) -> bool:
        """Free the capacity of an attempt.  False if it was released before.

        ``output_tokens``: output tokens of the request over all attempts; None if unknown.  ``finished``: whether the
        request ended by itself; only then are its length and times learned from.
        """
        reservation = self._ledger.find(attempt_number)
        emitted = reservation.emitted_tokens if reservation is not None else 0
        self._charges.settle(attempt_number, max(0, (output_tokens or 0) - emitted), now)
        return self._attempts.release(attempt_number, now, output_tokens=output_tokens, finished=finished)

    def park(self, attempt_number: int, now: float) -> bool:
        """Note that a prefill leg's sequence is over: its slot is free, its KV tokens stay taken until ``release``.

        False if the attempt is over.
        """
        return self._attempts.park(attempt_number, now)

    def unreserved_attempt(self) -> int:
        """Return the number of an attempt without a reservation: one of a warm-up."""
        return self._ledger.next_number()

    def live_attempts(self) -> int:
        """Count the attempts that hold capacity."""
        return len(self._ledger)

    def output_coverage(self) -> Coverage:
        """Return how often outputs were no longer than predicted."""
        return self._outputs.coverage
