"""The instances a decision looked at, written out only when someone asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Column
from scheduler_svc.domain.decision import Candidate
from scheduler_svc.domain.objectives.late_scores import LateScores
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.placement.filters import no_capacity_reason
from scheduler_svc.domain.placement.full_instances import NOTHING_FULL, FullInstances

_FLOAT = np.dtype(np.float64)
_Kept = Column | LateScores | tuple[float, ...]


class CandidateTable(Sequence[Candidate]):
    """The candidates of a decision with their figures at that time.

    First come the instances offered to the objective, then those without capacity, then those unable to serve it.
    """

    __slots__ = (
        "_cached",
        "_choice_index",
        "_count",
        "_full",
        "_must_leave_reserve",
        "_offered",
        "_rejected",
        "_scores",
        "_tokens",
        "_unable",
    )

    def __init__(
        self,
        *,
        demand: Demand,
        choice: Choice,
        offered: Accounts,
        able: Accounts,
        unable: Sequence[tuple[str, str, str]],
    ) -> None:
        """Keep the figures of now.  ``able``: those offered and those without capacity.

        ``unable``: instance id, filter, reason.
        """
        self._tokens = demand.tokens
        self._must_leave_reserve = demand.must_leave_reserve
        self._choice_index = choice.index
        self._rejected = choice.rejected
        self._offered: Sequence[Account] = offered
        self._cached = demand.cached_tokens
        self._scores = _kept(choice.scores)
        self._full = NOTHING_FULL if offered is able else FullInstances(able, offered)
        self._unable = unable
        self._count = len(able) + len(unable)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(index, slice):
            return [self._write(i) for i in range(*index.indices(len(self)))]
        return self._write(range(len(self))[index])

    def __iter__(self) -> Iterator[Candidate]:
        return (self._write(i) for i in range(len(self)))

    def head(self, count: int) -> CandidateTable:
        """Return a table of the first ``count`` candidates; it writes out none and keeps nothing of the others."""
        found = object.__new__(CandidateTable)
        found._tokens, found._choice_index = self._tokens, self._choice_index
        found._must_leave_reserve = self._must_leave_reserve
        found._offered = tuple(self._offered[:count])
        offered = len(found._offered)
        ids = (a.instance_id for a in found._offered)
        found._cached = {name: tokens for name in ids if (tokens := self._cached.get(name, 0))}
        found._rejected = {row: self._rejected[row] for row in range(offered) if row in self._rejected}
        found._scores = {name: np.array(scores[:offered]) for name, scores in self._scores.items()}
        found._full = self._full.head(count - offered) if self._full and count > offered else NOTHING_FULL
        found._unable = self._unable[: count - offered - len(found._full)]
        found._count = offered + len(found._full) + len(found._unable)
        return found

    @property
    def choice(self) -> Candidate:
        """The chosen instance; reading it does not write out the others."""
        return self._write_offered(self._choice_index)

    def _write(self, row: int) -> Candidate:
        if row < len(self._offered):
            return self._write_offered(row)
        row -= len(self._offered)
        if row < len(self._full):
            return self._write_full(row)
        instance_id, name, reason = self._unable[row - len(self._full)]
        return Candidate(instance_id=instance_id, filtered_by=name, filter_reason=reason)

    def _write_offered(self, row: int) -> Candidate:
        name, reason = self._rejected.get(row, ("", ""))
        return Candidate(
            instance_id=self._offered[row].instance_id,
            chosen=row == self._choice_index,
            filtered_by=name,
            filter_reason=reason,
            scores={scorer: float(scores[row]) for scorer, scores in self._scores.items()},
            cached_tokens=self._cached.get(self._offered[row].instance_id, 0),
        )

    def _write_full(self, row: int) -> Candidate:
        figures = self._full.figures(row)
        name, reason = no_capacity_reason(*figures, self._tokens, self._must_leave_reserve)
        return Candidate(instance_id=self._full.account(row).instance_id, filtered_by=name, filter_reason=reason)


def _kept(scores: Mapping[str, Column | Sequence[float]]) -> Mapping[str, _Kept]:
    """Return the scores so that nobody changes them any more: copies, unless they were made for this choice."""
    kept: dict[str, _Kept] = {}
    for name, each in scores.items():
        own = type(each) is np.ndarray and each.base is None and each.dtype is _FLOAT
        if own or type(each) is LateScores or type(each) is tuple:
            kept[name] = each  # type: ignore[assignment]  # told by its very type, which costs least
        else:
            kept[name] = np.array(each, dtype=np.float64)
    return kept
