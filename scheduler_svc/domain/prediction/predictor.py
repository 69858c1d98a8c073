"""Learns one engine's speed from its heartbeats, and measures how good the predictions are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.prediction.forgetting_mean import ForgettingMean
from scheduler_svc.domain.prediction.iteration_model import IterationModel
from scheduler_svc.domain.prediction.margin import Margin, Margins, StartDelay
from scheduler_svc.domain.prediction.pace import Pace

_SAMPLES_PER_HEARTBEAT = 16
_CACHE_FORGETTING = 0.9  # per heartbeat with prompts in it
_TELLING_SAMPLES = 32
_TELLING_TOKENS = 8  # shorter outputs say less of the time per token: one prompt beside them changes it


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """How close predictions of one kind were recently."""

    count: int  # in all
    relative_error: float  # mean of |predicted - measured| / measured
    bias_s: float  # mean of predicted - measured, seconds


class ErrorTracker:
    """Keeps exponentially weighted means of prediction errors."""

    __slots__ = ("_bias", "_relative")

    def __init__(self, forgetting: float) -> None:
        self._relative = ForgettingMean(forgetting)
        self._bias = ForgettingMean(forgetting)

    def add(self, predicted_s: float, measured_s: float) -> None:
        """Take a predicted and a measured time, both in seconds."""
        error = predicted_s - measured_s
        self._relative.add(abs(error) / max(measured_s, 1e-6))
        self._bias.add(error)

    @property
    def accuracy(self) -> Accuracy:
        """The means so far."""
        return Accuracy(count=self._bias.count, relative_error=self._relative.value, bias_s=self._bias.value)


class Predictor:
    """Learns an engine's pace from its heartbeats and keeps the errors of the predictions made with it."""

    def __init__(self, prior: Pace, *, forgetting: float, measured: Sequence[IterationSample] = ()) -> None:
        """Begin with a prior, and with the iterations that the executor measured before the first request, if any.

        These teach as iterations of heartbeats do, and are forgotten as those come.  They are few, each the median of
        some: together they count as many as make the pace comparable.
        """
        self._model = IterationModel(prior, forgetting=forgetting)
        usable = _usable(measured)
        times = -(-_TELLING_SAMPLES // len(usable)) if usable else 0
        for number, sample in enumerate(usable * times, start=1):
            self._model.learn(sample)
            if number % _SAMPLES_PER_HEARTBEAT == 0:  # what was learned so far weighs those that come
                self._model.solve()
        self.iteration = ErrorTracker(forgetting)  # one engine iteration
        self.first_token = ErrorTracker(forgetting)  # decision to first token
        self.finish = ErrorTracker(forgetting)  # decision to end, for the output length that came
        self.pace = self._model.solve()
        self.busy_at = 0.0  # when the engine last had something to do, seconds on the scheduler's clock
        self._first_token_margin = Margin()
        self._token_margin = Margin()
        self._alone_delay = StartDelay()
        self._behind_delay = StartDelay()
        self._queried = self._hit = 0  # prefix cache counters of the last heartbeat, tokens
        self._queries = ForgettingMean(_CACHE_FORGETTING)
        self._hits = ForgettingMean(_CACHE_FORGETTING)

    @property
    def samples(self) -> int:
        """Iterations learned from."""
        return self._model.samples

    @property
    def telling(self) -> bool:
        """Whether enough iterations were learned from for the pace to be compared with other engines'."""
        return self.samples >= _TELLING_SAMPLES

    def learn(self, load: LoadReport) -> bool:
        """Take a heartbeat.  True if anything was learned.

        Samples without a duration are ignored; of many samples about sixteen are used.
        """
        usable = _usable(load.samples)
        usable = usable[:: -(-len(usable) // _SAMPLES_PER_HEARTBEAT) or 1]
        for sample in usable:
            self.iteration.add(self._model.predict(sample), sample.elapsed_s)
            self._model.learn(sample)
        if usable:
            self.pace = self._model.solve()
        return self._learn_cache_use(load) or bool(usable)

    def first_token_came(self, predicted_s: float, measured_s: float) -> None:
        """Take a predicted and a measured time from decision to first token, in seconds."""
        self.first_token.add(predicted_s, measured_s)
        self._first_token_margin.add(predicted_s, measured_s)

    def prompt_computed(self, predicted_s: float, measured_s: float, step_s: float, *, alone: bool) -> None:
        """Take the same of a request whose prompt the engine computed itself, predicted without a delay.

        ``step_s``: seconds of a step that is full of prompt tokens.  ``alone``: False if other prompts were ahead.
        """
        (self._alone_delay if alone else self._behind_delay).add(predicted_s, measured_s, step_s)

    def tokens_came(self, predicted_token_s: float, measured_s: float, tokens: int) -> None:
        """Take the seconds that all tokens after the first took together, and what was predicted for each."""
        weight = min(1.0, tokens / _TELLING_TOKENS)
        self._token_margin.add(predicted_token_s, measured_s / tokens, weight=weight)

    @property
    def margins(self) -> Margins:
        """The margins of predictions about this engine."""
        return Margins(
            first_token=self._first_token_margin.value,
            token=self._token_margin.value,
            alone_delay_s=self._alone_delay.value,
            behind_delay_s=self._behind_delay.value,
        )

    def _learn_cache_use(self, load: LoadReport) -> bool:
        queried = load.prefix_queries_tokens - self._queried
        hit = load.prefix_hits_tokens - self._hit
        self._queried, self._hit = load.prefix_queries_tokens, load.prefix_hits_tokens
        if queried <= 0:
            return False
        self._queries.add(queried)
        self._hits.add(max(0, hit))
        return True

    @property
    def uncached_share(self) -> float:
        """Share of recent prompt tokens that the prefix cache did not hold, [0, 1]."""
        return 1 - min(1.0, self._hits.value / self._queries.value) if self._queries.count else 1.0

    def accuracies(self) -> dict[str, Accuracy]:
        """Return the accuracy of each kind of prediction: "iteration", "first_token", "finish"."""
        return {
            "iteration": self.iteration.accuracy,
            "first_token": self.first_token.accuracy,
            "finish": self.finish.accuracy,
        }


def _usable(samples: Sequence[IterationSample]) -> list[IterationSample]:
    return [s for s in samples if s.elapsed_s > 0]
