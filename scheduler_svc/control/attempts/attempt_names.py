"""The names of attempts that an earlier scheduler began."""

from __future__ import annotations


class AttemptNames:
    """Epoch and number of adopted attempts, by the number that they have here.

    Every attempt has a number of this scheduler's own counting.  That of an adopted one is not known to its executor,
    which names it as the scheduler did that began it.
    """

    def __init__(self) -> None:
        self._names: dict[int, tuple[int, int]] = {}  # epoch and number, by the number here
        self._numbers: dict[tuple[int, int], int] = {}

    def adopt(self, name: tuple[int, int], number: int) -> None:
        """Note that the attempt of this epoch and number has ``number`` here."""
        self._names[number] = name
        self._numbers[name] = number

    def forget(self, number: int) -> None:
        """Forget an attempt that is over; does nothing for one that was begun here."""
        name = self._names.pop(number, None)
        if name is not None:
            del self._numbers[name]

    def of(self, number: int) -> tuple[int, int] | None:
        """Return the epoch and number of an adopted attempt; None for one that was begun here."""
        return self._names.get(number)

    def number(self, epoch: int, number: int) -> int | None:
        """Return the number here of an adopted attempt; None if there is none."""
        return self._numbers.get((epoch, number))
