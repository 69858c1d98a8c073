"""The instances that an objective took out of the choice, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from scheduler_svc.domain.capacity.figures import Mask, count

#: Returns the name of the filter that takes an account out, and the reason, given the account's index.
Reason = Callable[[int], tuple[str, str]]


class Rejected(Mapping[int, tuple[str, str]]):
    """By index of an account: the filter that took it out, and the reason, which is written out when it is read."""

    def __init__(self) -> None:
        self._rules: list[tuple[Mask, Reason]] = []

    def add(self, mask: Mask, reason: Reason) -> None:
        """Take out the accounts for which the mask holds; of those taken out already the first reason stays."""
        self._rules.append((mask, reason))

    def __getitem__(self, index: int) -> tuple[str, str]:
        for mask, reason in self._rules:
            if bool(mask[index]):
                return reason(index)
        raise KeyError(index)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and any(bool(mask[index]) for mask, _ in self._rules)

    def __iter__(self) -> Iterator[int]:
        return iter(self._any().nonzero()[0].tolist())

    def __len__(self) -> int:
        return count(self._any()) if self._rules else 0

    def __bool__(self) -> bool:
        return len(self) > 0

    def _any(self) -> Mask:
        if not self._rules:
            return np.zeros(0, dtype=np.bool_)
        found = self._rules[0][0]
        for mask, _ in self._rules[1:]:
            found = found | mask
        return found
