"""How close texts are to a question, from their embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from sage_client._embeddings import Embeddings
from sage_client._errors import NotSupportedError
from sage_client._events import Usage
from sage_client._plain import Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores(Plain, Sequence[float]):
    """The score of each document: the cosine of its vector and the query's, from -1 to 1."""

    scores: tuple[float, ...]  # in the order of the documents
    model: str  # the model that made the vectors
    request_id: str  # of the call
    usage: Usage  # of the query and all documents
    cost: float  # of all, in the currency of the instances' prices

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[float]:
        return iter(self.scores)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...
    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        return self.scores[index]

    def ranked(self) -> list[int]:
        """Return the documents' places, the best score first."""
        return sorted(range(len(self.scores)), key=lambda place: -self.scores[place])


def scores_of(found: Embeddings) -> Scores:
    """Return how close each vector but the first is to the first.

    Raises:
        NotSupportedError: the model classifies; it scores a pair of texts as one prompt, which it makes by itself.
    """
    if found.classifies:
        raise NotSupportedError(f"{found.model} scores pairs of texts itself: ask a gateway's /v1/score")
    query, *documents = found.vectors
    return Scores(
        scores=tuple(_cosine(query, each) for each in documents),
        model=found.model,
        request_id=found.request_id,
        usage=found.usage,
        cost=found.cost,
    )


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
