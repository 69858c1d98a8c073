"""All reservations on all instances."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.kv_blocks import whole_blocks
from scheduler_svc.domain.capacity.reservation import Reservation


class Ledger:
    """Holds all reservations, by attempt number, and the account that each is entered in."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Account, Reservation]] = {}  # by attempt number
        self._last_attempt = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def next_number(self) -> int:
        """Return a new attempt number, unique for this ledger's life."""
        self._last_attempt += 1
        return self._last_attempt

    def enter(self, account: Account, reservation: Reservation, now: float) -> int:
        """Take a reservation's capacity from an account.  Returns the attempt's number."""
        number = reservation.attempt_number = self.next_number()
        self._entries[number] = account, reservation
        account.enter(reservation, now)
        return number

    def find(self, attempt_number: int) -> Reservation | None:
        """Return an attempt's reservation; None if there is none (any more)."""
        entry = self._entries.get(attempt_number)
        return entry[1] if entry is not None else None

    def first_token(self, reservation: Reservation, now: float) -> None:
        """Note the first token of a reservation's attempt."""
        reservation.first_token_at = now
        self._account(reservation).first_token(reservation, now)

    def cover(self, reservation: Reservation, tokens: int) -> None:
        """Raise a reservation to at least ``tokens`` KV tokens, in whole blocks."""
        if tokens > reservation.tokens:
            account = self._account(reservation)
            account.grow(reservation, whole_blocks(tokens, account.block))

    def park(self, reservation: Reservation, now: float) -> None:
        """Free the slot of a reservation whose sequence is over and whose KV tokens stay taken."""
        self._account(reservation).park(reservation, now)

    def release(self, attempt_number: int, now: float, *, used_tokens: int = 0) -> Reservation | None:
        """Free the capacity of an attempt.  ``used_tokens``: KV tokens it held in the engine at its end, if known.

        None if the attempt has no reservation (any more).
        """
        entry = self._entries.pop(attempt_number, None)
        if entry is None:
            return None
        account, reservation = entry
        account.leave(reservation, now, used_tokens=used_tokens)
        return reservation

    def release_all(self, account: Account, now: float) -> list[int]:
        """Free everything on one instance.  Returns attempt numbers, oldest first."""
        numbers = list(account.reservations)
        for number in numbers:
            self.release(number, now)
        return numbers

    def _account(self, reservation: Reservation) -> Account:
        return self._entries[reservation.attempt_number][0]
