"""All that is promised on all instances."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.kv_blocks import whole_blocks
from scheduler_svc.domain.capacity.reservation import Reservation


class Ledger:
    """Holds all reservations, by attempt number, and the account that each is entered in."""

    def __init__(self) -> None:
        self._reservations: dict[int, Reservation] = {}
        self._accounts: dict[int, Account] = {}  # by attempt number
        self._last_attempt = 0

    def __len__(self) -> int:
        return len(self._reservations)

    def next_number(self) -> int:
        """Return a new attempt number, unique for this ledger's life."""
        self._last_attempt += 1
        return self._last_attempt

    def enter(self, account: Account, reservation: Reservation, now: float) -> int:
        """Take a reservation's capacity from an account.  Returns the attempt's number."""
        number = reservation.attempt_number = self.next_number()
        self._reservations[number] = reservation
        self._accounts[number] = account
        account.enter(reservation, now)
        return number

    def find(self, attempt_number: int) -> Reservation | None:
        """Return an attempt's reservation; None if there is none (any more)."""
        return self._reservations.get(attempt_number)

    def first_token(self, reservation: Reservation, now: float) -> None:
        """Note the first token of a reservation's attempt."""
        reservation.first_token_at = now
        self._accounts[reservation.attempt_number].first_token(reservation, now)

    def cover(self, reservation: Reservation, tokens: int) -> None:
        """Raise a reservation that is smaller than ``tokens`` KV tokens to that, in whole blocks."""
        if tokens > reservation.tokens:
            account = self._accounts[reservation.attempt_number]
            account.grow(reservation, whole_blocks(tokens, account.block))

    def park(self, reservation: Reservation, now: float) -> None:
        """Free the slot of a reservation whose sequence is over and whose KV tokens stay taken."""
        self._accounts[reservation.attempt_number].park(reservation, now)

    def release(self, attempt_number: int, now: float, *, used_tokens: int = 0) -> Reservation | None:
        """Free the capacity of an attempt.  ``used_tokens``: KV tokens it held in the engine at its end, if known.

        None if the attempt has no reservation (any more).
        """
        reservation = self._reservations.pop(attempt_number, None)
        if reservation is not None:
            self._accounts.pop(attempt_number).leave(reservation, now, used_tokens=used_tokens)
        return reservation

    def release_all(self, account: Account, now: float) -> list[int]:
        """Free everything on one instance.  Returns attempt numbers, oldest first."""
        numbers = list(account.reservations)
        for number in numbers:
            self.release(number, now)
        return numbers
