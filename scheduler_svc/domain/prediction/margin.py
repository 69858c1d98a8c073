"""How far measured times exceed predicted ones."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.prediction.forgetting_mean import ForgettingMean

_COVERED = 0.99  # share of measured times that lie within the margin
_STEP = 0.05  # largest relative change by one measured time
_PRIOR = 2.5  # careful until times were measured: company that comes later slows what was placed before
_MOST = 3.0
_BORROWED = 2 * _PRIOR
_DELAY_FORGETTING = 0.97  # weight of a first token after the next one
_MOST_STEPS = 3
#: No margin is larger.
MOST_MARGIN = max(_MOST, _BORROWED)


class Margin:
    """The factor that a predicted time has to be multiplied by to cover 99 % of the measured times.

    A running quantile of measured / predicted: a time beyond the margin widens it by 5 %, one within it narrows it by
    0.05 %, so that it rests where one in a hundred lies beyond.  It stays within [1, 3].
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = _PRIOR

    def add(self, predicted_s: float, measured_s: float, *, weight: float = 1.0) -> None:
        """Take a predicted and a measured time, both in seconds.  ``weight``: [0, 1]."""
        beyond = measured_s > self.value * predicted_s
        change = _STEP * weight * (_COVERED if beyond else _COVERED - 1)
        self.value = min(max(1.0, self.value * (1 + change)), _MOST)


class StartDelay:
    """How long a prompt waits at an engine beyond what is predicted, in seconds: a running mean.

    Nothing that is predicted holds the step that runs when a prompt comes, the step that is scheduled behind it already
    (vLLM's asynchronous scheduling), or the way there and back; nor, of a prompt with others around it, the rest of its
    last step, which later prompts fill.  One first token that is very late counts as late by three steps.
    """

    __slots__ = ("_mean",)

    def __init__(self) -> None:
        self._mean = ForgettingMean(_DELAY_FORGETTING)

    @property
    def value(self) -> float:
        """The seconds to add; 0 until a first token came."""
        return max(0.0, self._mean.value)

    def add(self, predicted_s: float, measured_s: float, step_s: float) -> None:
        """Take a time to a first token as predicted without this delay, and as it came.

        ``step_s``: seconds of a step that is full of prompt tokens.
        """
        most = _MOST_STEPS * step_s
        self._mean.add(min(max(measured_s - predicted_s, -most), most))


@dataclass(frozen=True, kw_only=True, slots=True)
class Margins:
    """The margins of predictions about one engine, by kind: factors of at least 1, and delays in seconds."""

    first_token: float = _PRIOR
    token: float = _PRIOR  # per output token after the first
    alone_delay_s: float = 0.0  # of a prompt that finds no other before its first token, beyond what is predicted
    behind_delay_s: float = 0.0  # of a prompt that finds others


PRIOR_MARGINS = Margins()
#: Of an engine that is scored by the pace of another one, which may be several times faster.
BORROWED_MARGINS = Margins(first_token=_BORROWED, token=_BORROWED)
