"""How long outputs turn out, learned per model from requests that finished."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from dataclasses import dataclass

_WINDOW = 256  # latest lengths remembered
_MAX_WINDOWS = 2_048
_TYPICAL = 128  # output tokens, where few requests of the kind have finished: the first to finish are the shortest
_TYPICAL_SAMPLES = 32


class _Window:
    """The latest lengths, sorted."""

    __slots__ = ("_latest", "_sorted", "_sum")

    def __init__(self) -> None:
        self._latest: deque[int] = deque()
        self._sorted: list[int] = []
        self._sum = 0

    def __len__(self) -> int:
        return len(self._latest)

    def __bool__(self) -> bool:
        return bool(self._latest)

    def add(self, length: int) -> None:
        if len(self._latest) >= _WINDOW:
            oldest = self._latest.popleft()
            self._sum -= oldest
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._latest.append(length)
        self._sum += length
        insort(self._sorted, length)

    @property
    def mean(self) -> float:
        count = len(self._latest)
        if count >= _TYPICAL_SAMPLES:
            return self._sum / count
        return (self._sum + (_TYPICAL_SAMPLES - count) * _TYPICAL) / _TYPICAL_SAMPLES

    def quantile(self, q: float) -> int:
        return self._sorted[min(len(self._sorted) - 1, int(q * len(self._sorted)))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How often an output was no longer than predicted: close to the quantile while lengths do not change."""

    count: int  # outputs
    covered: int  # of those, no longer than predicted


class OutputLengths:
    """Predicts a request's output tokens as a quantile of those of earlier requests of its model.

    Requests that may write 16 tokens say nothing about those that may write 4,096, so lengths are kept apart by
    ``max_tokens`` in powers of two.  Until ``min_samples`` requests finished, the prediction is ``max_tokens``.  At
    most 2,048 windows of 256 lengths are kept; the one longest without a sample goes first.
    """

    def __init__(self, *, quantile: float, min_samples: int) -> None:
        self._quantile = quantile
        self._min_samples = min_samples
        self._windows: OrderedDict[tuple[str, int], _Window] = OrderedDict()
        self._predicted: dict[tuple[str, int], int] = {}
        self._count = 0
        self._covered = 0

    def predict(self, model: str, max_tokens: int, emitted_tokens: int = 0) -> int:
        """Predict output tokens still to come, at least 1 and at most what ``max_tokens`` leaves."""
        left = max(1, max_tokens - emitted_tokens)
        whole = self._predicted.get((model, max_tokens.bit_length()))
        if whole is None or whole <= emitted_tokens:  # longer than predicted already
            return left
        return min(left, whole - emitted_tokens)

    def mean(self, model: str, max_tokens: int, emitted_tokens: int = 0) -> float:
        """Return the mean of output tokens still to come, at least 1 and at most what ``max_tokens`` leaves."""
        left = max(1, max_tokens - emitted_tokens)
        window = self._windows.get((model, max_tokens.bit_length()))
        whole = window.mean if window is not None else _TYPICAL
        return min(left, max(1.0, whole - emitted_tokens))

    def learn(self, model: str, max_tokens: int, output_tokens: int) -> None:
        """Take the length of a request that finished by itself."""
        if output_tokens < 1:
            return
        self._count += 1
        self._covered += output_tokens <= self.predict(model, max_tokens)
        bucket = (model, max_tokens.bit_length())
        window = self._windows.get(bucket)
        if window is None:
            window = self._windows[bucket] = _Window()
            if len(self._windows) > _MAX_WINDOWS:
                oldest, _ = self._windows.popitem(last=False)
                self._predicted.pop(oldest, None)
        self._windows.move_to_end(bucket)
        window.add(output_tokens)
        if len(window) >= self._min_samples:
            self._predicted[bucket] = window.quantile(self._quantile)

    @property
    def coverage(self) -> Coverage:
        """How often predictions covered the output, since the start."""
        return Coverage(count=self._count, covered=self._covered)
