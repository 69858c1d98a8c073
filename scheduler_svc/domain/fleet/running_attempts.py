"""Updates reservations with what happens to their attempts."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.fleet.registry import Registry
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.prediction.output_length import OutputLengths
from scheduler_svc.domain.prediction.predictor import Predictor
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes

#: Output tokens after which the progress of a request that outgrew its reservation is to be noted again.
PROGRESS_TOKENS = 16


class RunningAttempts:
    """Updates reservations with what happens to their attempts, and learns from requests that finish."""

    def __init__(self, registry: Registry, ledger: Ledger, outputs: OutputLengths, prefixes: CachedPrefixes) -> None:
        self._registry = registry
        self._ledger = ledger
        self._outputs = outputs
        self._prefixes = prefixes

    def assigned(self, attempt_number: int, assign_number: int) -> bool:
        """Note the number of an attempt's Assign in its session; False if the attempt is over.

        Heartbeats refer to it: ``LoadReport.last_assign`` says which attempts their figures include.
        """
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return False
        reservation.assign_number = assign_number
        return True

    def first_token(self, attempt_number: int, now: float) -> None:
        """Note an attempt's first token.  Later calls change nothing."""
        reservation = self._ledger.find(attempt_number)
        if reservation is None or reservation.first_token_at is not None:
            return
        self._ledger.first_token(reservation, now)
        self._prefixes.prefilled(attempt_number)
        instance = self._registry.find(reservation.instance_id)
        if instance is None:
            return
        self._registry.pool_of(instance).changed = True  # the next prompt may go there
        if instance.predictor is not None:
            self._learn_start(instance.predictor, instance.account, reservation, now - reservation.made_at)

    def _learn_start(self, predictor: Predictor, account: Account, reservation: Reservation, measured_s: float) -> None:
        predicted_s = reservation.first_token_in_s
        predictor.first_token_came(predicted_s, measured_s)
        undelayed_s = predicted_s - reservation.start_delay_s
        alone = reservation.goes_first and not account.pending  # no other prompt shared its steps
        if alone or (reservation.goes_behind and not reservation.critical):  # a CRITICAL one may overtake those ahead
            predictor.prompt_computed(undelayed_s, measured_s, account.chunk_s, alone=alone)

    def progress(self, attempt_number: int, tokens: int) -> None:
        """Note that a request has ``tokens`` output tokens now, over all attempts.

        A reservation that turns out too small grows, and covers the next ``PROGRESS_TOKENS`` as well.
        """
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return
        own_tokens = min(tokens + PROGRESS_TOKENS, reservation.max_tokens) - reservation.emitted_tokens
        self._ledger.cover(reservation, reservation.prompt_tokens + own_tokens)

    def park(self, attempt_number: int, now: float) -> bool:
        """Note that a prefill leg's sequence is over: its slot is free, its KV tokens stay taken until ``release``.

        False if the attempt is over.
        """
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return False
        self._ledger.park(reservation, now)
        self._prefixes.prefilled(attempt_number)
        instance = self._registry.find(reservation.instance_id)
        if instance is not None:
            self._registry.pool_of(instance).changed = True
        return True

    def release(self, attempt_number: int, now: float, *, output_tokens: int | None, finished: bool) -> bool:
        """Free the capacity of an attempt.  False if it was released before.

        ``output_tokens``: output tokens of the request over all attempts; None if unknown.  ``finished``: whether the
        request ended by itself; only then are its length and times learned from.
        """
        reservation = self._ledger.find(attempt_number)
        if reservation is None:
            return False
        own_tokens = (output_tokens or reservation.emitted_tokens) - reservation.emitted_tokens
        self._ledger.release(attempt_number, now, used_tokens=reservation.prompt_tokens + max(0, own_tokens))
        self._prefixes.released(reservation, max(0, own_tokens))
        instance = self._registry.find(reservation.instance_id)
        if instance is not None:
            self._registry.pool_of(instance).changed = True
            if finished and output_tokens is not None:
                self._learn(instance, reservation, now, output_tokens, own_tokens)
        return True

    def _learn(
        self, instance: Instance, reservation: Reservation, now: float, output_tokens: int, own_tokens: int
    ) -> None:
        took_s = now - reservation.made_at
        late = _is_late(reservation, now, own_tokens)
        instance.account.late += late
        self._registry.pool_of(instance).trouble.finished(now, late=late)
        self._outputs.learn(instance.spec.model, reservation.max_tokens, output_tokens)
        self._registry.pool_of(instance).observe_service(took_s)
        if instance.predictor is not None and own_tokens > 0:
            predicted_s = reservation.first_token_in_s + (own_tokens - 1) * reservation.token_s
            instance.predictor.finish.add(predicted_s, took_s)
            first_token_at = reservation.first_token_at
            if first_token_at is not None and own_tokens > 1:
                instance.predictor.tokens_came(reservation.token_s, now - first_token_at, own_tokens - 1)


def _is_late(reservation: Reservation, now: float, own_tokens: int) -> bool:
    """Whether an attempt that finished missed its request's target for the first token or for the others."""
    first_token_at = reservation.first_token_at
    if first_token_at is None:
        return False
    return first_token_at > reservation.first_token_by or (
        own_tokens > 1 and now - first_token_at > reservation.tpot_target_s * (own_tokens - 1)
    )
