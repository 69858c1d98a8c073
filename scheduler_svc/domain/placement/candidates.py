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
        tokens: int,
        must_leave_reserve: bool,
        choice_index: int,
        rejected: Mapping[int, tuple[str, str]],
        offered: Sequence[Account],
        cached: Mapping[str, int],
        scores: Mapping[str, _Kept],
        full: FullInstances,
        unable: Sequence[tuple[str, str, str]],
    ) -> None:
        """Keep figures.  ``full``: instances without capacity.  ``unable``: instance id, filter, reason."""
        self._tokens = tokens  # KV tokens that the request needs
        self._must_leave_reserve = must_leave_reserve
        self._choice_index = choice_index
        self._rejected = rejected
        self._offered = offered
        self._cached = cached
        self._scores = scores
        self._full = full
        self._unable = unable
        self._count = len(offered) + len(full) + len(unable)

    @classmethod
    def of(
        cls,
        demand: Demand,
        choice: Choice,
        *,
        offered: Accounts,
        able: Accounts,
        unable: Sequence[tuple[str, str, str]],
    ) -> CandidateTable:
        """Make the table of a choice, with the figures of now.  ``able``: those offered and those without capacity."""
        return CandidateTable(
            tokens=demand.tokens,
            must_leave_reserve=demand.must_leave_reserve,
            choice_index=choice.index,
            rejected=choice.rejected,
            offered=offered,
            cached=demand.cached_tokens,
            scores=_kept(choice.scores),
            full=NOTHING_FULL if offered is able else FullInstances(able, offered),
            unable=unable,
        )

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return len(self) > 0

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(index, slice):
            return [self._write(i) for i in range(*index.indices(len(self)))]
        return self._write(range(len(self))[index])

    def __iter__(self) -> Iterator[Candidate]:
        for row in range(len(self)):
            yield self._write(row)

    def head(self, count: int) -> CandidateTable:
        """Return a table of the first ``count`` candidates; it writes out none and keeps nothing of the others."""
        offered = tuple(self._offered[:count])
        rows = range(len(offered))
        full = self._full.head(count - len(offered)) if self._full and count > len(offered) else NOTHING_FULL
        return CandidateTable(
            tokens=self._tokens,
            must_leave_reserve=self._must_leave_reserve,
            choice_index=self._choice_index,
            rejected={row: self._rejected[row] for row in rows if row in self._rejected},
            offered=offered,
            cached={a.instance_id: n for a in offered if (n := self._cached.get(a.instance_id, 0))},
            scores={name: np.array(scores[: len(offered)]) for name, scores in self._scores.items()},
            full=full,
            unable=self._unable[: count - len(offered) - len(full)],
        )

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
