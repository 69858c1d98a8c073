"""Scores that explain a choice and did not decide it: worked out when someone reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from scheduler_svc.domain.objectives.scorers import Scores


class LateScores(Sequence[float]):
    """A score for each account, worked out when the first is read, by figures that were kept for it."""

    __slots__ = ("_column", "_count", "_work_out")

    def __init__(self, count: int, work_out: Callable[[], Scores]) -> None:
        """``count``: accounts.  ``work_out``: is called at most once; what it uses must not change meanwhile."""
        self._count = count
        self._work_out: Callable[[], Scores] | None = work_out
        self._column: Scores | None = None

    @property
    def column(self) -> Scores:
        """The scores as an array."""
        if self._column is None:
            assert self._work_out is not None, "forgotten only when the column is there"
            self._column, self._work_out = self._work_out(), None
        return self._column

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return len(self) > 0

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...
    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        if not isinstance(index, slice):
            return self.column.item(index)
        some: list[float] = self.column[index].tolist()
        return some
