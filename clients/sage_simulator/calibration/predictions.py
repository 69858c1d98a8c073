"""What a scheduler predicted of recorded requests, beside what came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from sage_simulator.traces.recording.recorded_lines import RecordedRequest

LEARNED_REQUESTS = 200
"""First tokens of an instance that are not judged: its pace is being learned."""

LEAST_WAIT_S = 0.5
"""Shorter waits in the queue are not judged: a scheduling pass more or less decides them."""

CLOSE = 0.25
"""A relative error up to here counts as close."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """One predicted time and the one that came, in seconds."""

    predicted_s: float
    came_s: float  # above 0

    @property
    def error(self) -> float:
        """Return the error as a share of the time that came."""
        return abs(self.predicted_s - self.came_s) / self.came_s


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionErrors:
    """How far the predictions of one kind were off; errors are shares of the times that came."""

    judged: int
    median_error: float | None  # None where nothing was judged, as the others
    p90_error: float | None
    median_ratio: float | None  # predicted / came: above 1 is too long
    close_share: float | None  # of those with an error up to ``CLOSE``

    @classmethod
    def of(cls, predictions: Sequence[Predicted]) -> PredictionErrors:
        """Sum predictions up."""
        if not predictions:
            return cls(judged=0, median_error=None, p90_error=None, median_ratio=None, close_share=None)
        errors = sorted(each.error for each in predictions)
        return cls(
            judged=len(errors),
            median_error=median(errors),
            p90_error=errors[-(-9 * len(errors) // 10) - 1],
            median_ratio=median(each.predicted_s / each.came_s for each in predictions),
            close_share=sum(each <= CLOSE for each in errors) / len(errors),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """The predictions that can be judged, in the order of arrival."""

    first_tokens: tuple[Predicted, ...]  # from the placement on
    waits: tuple[Predicted, ...]  # in the queue, told with the acceptance

    def errors(self) -> dict[str, PredictionErrors]:
        """Return how far the predictions were off, by kind."""
        return {"first_token": PredictionErrors.of(self.first_tokens), "wait": PredictionErrors.of(self.waits)}


def predictions(requests: Iterable[RecordedRequest], from_s: float = 0.0, to_s: float = inf) -> Predictions:
    """Collect what was predicted of requests that were placed once and arrived in [from_s, to_s].

    ``requests``: all of a recording, because those that came before are what the scheduler learned from.
    """
    placed = sorted((each for each in requests if each.attempts == 1), key=lambda each: each.decided_s or 0.0)
    learned = [each for each in _after_learning(placed) if from_s <= each.arrival_s <= to_s]
    arrived = sorted((each for each in placed if from_s <= each.arrival_s <= to_s), key=lambda each: each.arrival_s)
    return Predictions(first_tokens=tuple(_first_tokens(learned)), waits=tuple(_waits(arrived)))


def _after_learning(placed: Iterable[RecordedRequest]) -> Iterator[RecordedRequest]:
    before: Counter[str] = Counter()
    for each in placed:
        before[each.instance] += 1
        if before[each.instance] > LEARNED_REQUESTS:
            yield each


def _first_tokens(placed: Iterable[RecordedRequest]) -> Iterator[Predicted]:
    for each in placed:
        predicted_s, decided_s, first_s = each.predicted_first_token_s, each.decided_s, each.first_token_s
        if predicted_s is not None and decided_s is not None and first_s is not None and first_s > decided_s:
            yield Predicted(predicted_s=predicted_s, came_s=first_s - decided_s)


def _waits(placed: Iterable[RecordedRequest]) -> Iterator[Predicted]:
    for each in placed:
        told_s, decided_s = each.expected_wait_s, each.decided_s
        if told_s is not None and decided_s is not None and decided_s - each.arrival_s >= LEAST_WAIT_S:
            yield Predicted(predicted_s=told_s, came_s=decided_s - each.arrival_s)
