"""Learns how long instances of a model take to start."""

from __future__ import annotations

from scheduler_svc.domain.prediction.forgetting_mean import ForgettingMean

_FORGETTING = 0.8  # about the last five starts


class StartTimes:
    """Averages the seconds from an instance's registration until it is READY."""

    __slots__ = ("_mean",)

    def __init__(self) -> None:
        self._mean = ForgettingMean(_FORGETTING)

    def add(self, seconds: float) -> None:
        """Take the start of an instance that became READY."""
        self._mean.add(seconds)

    @property
    def mean_s(self) -> float | None:
        """The mean of recent starts; None before the first."""
        return self._mean.value if self._mean.count else None
