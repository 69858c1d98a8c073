"""The children of one metric by label values, each looked up once and kept, in a bounded number."""

from __future__ import annotations

from typing import Generic, TypeVar

from prometheus_client import Counter, Histogram

LABEL_SETS_LIMIT = 4_096
"""Label sets of one metric; further ones are counted together under ``OVERFLOW``."""
OVERFLOW = "(other)"
"""The value of every label for counts beyond the limit."""

M = TypeVar("M", Counter, Histogram)


class LabelSets(Generic[M]):
    """One metric's children.  Finding one takes 0.1 µs here and 0.8 µs in prometheus_client, which takes a lock.

    Only the event loop's thread calls it; any thread may collect the metric meanwhile.
    """

    def __init__(self, metric: M, label_names: tuple[str, ...], limit: int = LABEL_SETS_LIMIT) -> None:
        """Take over ``metric``, which has no child yet.  ``limit``: label sets, ``OVERFLOW``'s not counted."""
        self._metric: M = metric
        self._label_names = label_names
        self._limit = limit
        self._children: dict[tuple[str, ...], M] = {} if label_names else {(): metric}

    def labels(self, *values: str) -> M:
        """Return the child of these label values, in the catalogue's order.  Raises ValueError for too few or many."""
        child = self._children.get(values)
        return child if child is not None else self._new(values)

    def begin(self, *values: str) -> None:
        """Export these label values at 0 before anything is counted: a rate needs a value to start from.

        Such beginnings take at most half of the label sets; beyond that they are left to the first count.
        """
        if values not in self._children and len(self._children) < self._limit // 2:
            self._new(values)

    def _new(self, values: tuple[str, ...]) -> M:
        if len(values) != len(self._label_names):
            raise ValueError(f"the labels are {self._label_names}, not {values}")
        if len(self._children) >= self._limit:
            values = (OVERFLOW,) * len(values)
        return self._children.setdefault(values, self._metric.labels(*values))
