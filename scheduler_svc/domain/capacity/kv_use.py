"""KV tokens in use on one instance."""

from __future__ import annotations

from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.load_report import LoadReport


class KvUse:
    """KV tokens that are reserved on an instance, and those that its engine reports."""

    __slots__ = ("freed_since_report", "reported_tokens", "reserved_tokens", "unseen", "unseen_tokens")

    def __init__(self) -> None:
        self.reserved_tokens = 0
        self.unseen: dict[int, Reservation] = {}  # reservations not yet in the engine's figures, by attempt number
        self.unseen_tokens = 0
        self.reported_tokens = 0  # in use, as the engine reported last
        self.freed_since_report = 0  # of ``reported_tokens``, those that were freed after the report

    def restart(self) -> None:
        """Forget what the engine reported: another one starts."""
        self.reported_tokens = 0
        self.freed_since_report = 0

    def add(self, reservation: Reservation) -> None:
        """Take the tokens of a reservation."""
        self.unseen[reservation.attempt_number] = reservation
        self.reserved_tokens += reservation.tokens
        self.unseen_tokens += reservation.tokens

    def remove(self, reservation: Reservation, used_tokens: int) -> None:
        """Give back the tokens of a reservation.  ``used_tokens``: those it held in the engine at its end, if known."""
        self.reserved_tokens -= reservation.tokens
        if reservation.seen:
            self.freed_since_report += used_tokens
        else:
            del self.unseen[reservation.attempt_number]
            self.unseen_tokens -= reservation.tokens

    def grow(self, reservation: Reservation, tokens: int) -> None:
        """Raise a reservation to ``tokens`` tokens."""
        more = tokens - reservation.tokens
        reservation.tokens = tokens
        self.reserved_tokens += more
        if not reservation.seen:
            self.unseen_tokens += more

    def report(self, load: LoadReport) -> None:
        """Take the engine's own figures.  From now on they include the reservations up to its ``last_assign``."""
        for number, reservation in list(self.unseen.items()):
            if reservation.assign_number and reservation.assign_number <= load.last_assign:
                reservation.seen = True
                del self.unseen[number]
                self.unseen_tokens -= reservation.tokens
        self.reported_tokens = load.kv_used_tokens
        self.freed_since_report = 0

    def used_tokens(self) -> int:
        """Return KV tokens in use: the reserved ones or, if more, those reported plus those not yet in the report."""
        reported = self.reported_tokens - self.freed_since_report
        in_engine = self.unseen_tokens + reported if reported > 0 else self.unseen_tokens
        return in_engine if in_engine > self.reserved_tokens else self.reserved_tokens
