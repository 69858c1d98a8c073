"""Requests that queue at one engine."""

from __future__ import annotations

from scheduler_svc.domain.capacity.reservation import Reservation


class EngineQueue:
    """The reservations whose requests were sent to an engine beyond the sequences that it runs."""

    __slots__ = ("prompt_tokens", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[int, Reservation] = {}  # by attempt number, oldest first
        self.prompt_tokens = 0  # of ``waiting``

    def add(self, reservation: Reservation) -> None:
        """Note a request that queues."""
        self.waiting[reservation.attempt_number] = reservation
        self.prompt_tokens += reservation.prompt_tokens

    def slot_freed(self, attempt_number: int) -> None:
        """Note that an attempt is over: it leaves the queue or, if it ran, the oldest that waits takes its slot."""
        gone = self.waiting.pop(attempt_number, None)
        if gone is None and self.waiting:
            gone = self.waiting.pop(next(iter(self.waiting)))
        if gone is not None:
            self.prompt_tokens -= gone.prompt_tokens
