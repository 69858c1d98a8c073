"""Whether requests of an earlier scheduler may still come back with their executors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from sage_common.clock import Clock, Timer
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.earlier_attempt import AdoptedAttempt
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.missing_instances import MissingInstances
from scheduler_svc.domain.errors import OutputLost, Recovering
from scheduler_svc.domain.request import RequestKey

log = logging.getLogger(__name__)

RETRY_S = (0.05, 0.25)
"""After how many seconds, at least and at most, a caller whose request is not known yet is asked to try again."""


class Recovery:
    """Open from the start until all instances that an earlier scheduler saw are back, or a time limit.

    For a request it ends as soon as no instance is missing that may hold it.
    """

    def __init__(self, clock: Clock, expected: Mapping[str, EarlierInstance], limit_s: float, *, epoch: int) -> None:
        """Begin to wait for the instances that had a session when an earlier scheduler died.

        ``expected``: by id; empty: nothing is waited for.  ``limit_s``: after these seconds the wait is over.
        ``epoch``: this scheduler's.
        """
        self._clock = clock
        self._epoch = epoch
        self._missing = MissingInstances(expected)
        self._back: list[Callable[[], None]] = []
        self._over: list[Callable[[], None]] = []
        self._timer: Timer | None = None
        self._began_at = clock.now()
        self._took_s = 0.0
        self.over_at = self._began_at  # seconds on the control clock; while it is open it has no meaning
        if expected:
            log.info("recovering: %d instances of an earlier scheduler may come back", len(expected))
            self._timer = clock.call_at(self._began_at + limit_s, self._limit)

    @property
    def missing(self) -> int:
        """How many instances have not come back: what they held may be lost."""
        return len(self._missing)

    @property
    def awaited(self) -> Mapping[str, EarlierInstance]:
        """The instances that may still come back, by id."""
        return dict(self._missing) if self.open else {}

    @property
    def awaited_models(self) -> Mapping[str, str]:
        """Their models, by id; an empty name: not known."""
        return {instance_id: each.model for instance_id, each in self.awaited.items()}

    @property
    def duration_s(self) -> float:
        """Seconds that the wait took, or has taken so far; 0 if nothing was waited for."""
        if self.open:
            return self._clock.now() - self._began_at
        return self._took_s

    @property
    def retry_s(self) -> float:
        """After how many seconds a caller is asked to try again: the longer the wait has been, the later."""
        least, most = RETRY_S
        return min(max(self.duration_s / 4, least), most)

    @property
    def open(self) -> bool:
        """Whether requests may still come back."""
        return self._timer is not None

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` once, when nothing comes back any more; not if nothing was waited for."""
        self._over.append(listener)

    def on_back(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever an instance came back, and at the end: fewer requests may still come back."""
        self._back.append(listener)

    def may_return(self, key: RequestKey, model: str = "") -> bool:
        """Return whether a request that is not known may still come back; empty ``model``: whatever it is for."""
        return self.open and self._missing.may_hold(key, model)

    def check(self, key: RequestKey, model: str = "") -> None:
        """Raise Recovering if a request that is not known may still come back; empty ``model``: whatever it is for."""
        if self.may_return(key, model):
            raise Recovering(self.retry_s)

    def check_model(self, model: str) -> None:
        """Raise Recovering if an instance of a model may still come back; an empty name stands for any model."""
        if self.open and self._missing.serve(model):
            raise Recovering(self.retry_s)

    def check_position(self, live: LiveRequest, after_token: int, after_attempt: tuple[int, int] | None) -> None:
        """Check that a request goes on with the tokens that a reader would get after those that it has.

        Raises Recovering if that is not known yet, OutputLost if the reader has tokens of an attempt that is gone, or
        more than anyone holds.  A request that ended otherwise than by finishing has its end for every reader.
        """
        if isinstance(live.published_outcome, Exception):
            return
        if live.journaled:
            ahead = after_token > len(live.published)  # nobody was given more than is published
            if ahead and after_attempt is not None and not self._began(live, after_attempt):
                raise OutputLost(f"the journal has {len(live.published)} output tokens")
        elif live.adopted is None:
            if after_attempt is not None and not self._began(live, after_attempt):
                raise OutputLost("its last tokens are of another generation, which is gone")
        elif after_attempt is None or after_attempt[0] != self._epoch:
            self._check_adopted(live, live.adopted, after_token, after_attempt)

    def check_logprobs(self, live: LiveRequest, after_token: int) -> None:
        """Check that the log probabilities of an adopted request are there from a position on, if it has any.

        Its executor has no more those of the tokens that an earlier scheduler acknowledged.  Raises Recovering,
        OutputLost.
        """
        adopted, have = live.adopted, len(live.output)
        ended_otherwise = isinstance(live.outcome, Exception)
        if adopted is None or live.journaled or ended_otherwise:
            return
        if live.request.sampling.prompt_logprobs is not None and have and not after_token and live.prompt is None:
            raise OutputLost("the log probabilities of its prompt are gone")
        if live.request.sampling.logprobs is None:
            return
        if live.output.lacks_logprobs(after_token):
            raise OutputLost(f"the log probabilities of its tokens after {after_token} are gone")
        if have <= after_token < adopted.tokens and live.adopted_until is None and live.outcome is None:
            raise Recovering(self.retry_s)  # whether the next token has them is not known yet

    def _began(self, live: LiveRequest, attempt: tuple[int, int]) -> bool:
        """Return whether an attempt is this scheduler's, and began since the request was accepted."""
        if attempt[0] != self._epoch or not live.placements:
            return False
        first = live.placements[0].decision
        return attempt[1] >= (first.attempt_number if first.prefill is None else first.prefill.attempt_number)

    def _check_adopted(
        self, live: LiveRequest, adopted: AdoptedAttempt, after_token: int, after_attempt: tuple[int, int] | None
    ) -> None:
        """Check the position of a reader whose last token an earlier scheduler gave it, as ``check_position`` does."""
        have, until = len(live.output), live.adopted_until
        if until is not None and after_token > until:
            raise OutputLost(f"its executor is gone, and only {until} output tokens are known of what that generated")
        if after_token > have:
            if have < adopted.tokens and live.outcome is None:
                raise Recovering(self.retry_s)  # its executor sends the output again
            raise OutputLost(f"it has {have} output tokens")
        elsewhere = self._missing.may_hold(live.lead.key, live.request.model)  # an attempt, at one that is away
        another = elsewhere if after_attempt is None else adopted.name < after_attempt
        if another and elsewhere and self.open:
            raise Recovering(self.retry_s)
        if another:
            raise OutputLost("the attempt that made its last tokens is gone with its executor")

    def back(self, instance_id: str) -> None:
        """Note that an instance came back and everything it held is adopted or refused."""
        missing = instance_id in self._missing
        self._missing.found(instance_id)
        if self.open and not self._missing:
            self._end("all instances are back")
        elif missing:
            self._tell(self._back)

    def _limit(self) -> None:
        self._end(f"{len(self._missing)} instances did not come back: {', '.join(sorted(self._missing)[:8])}")

    def _end(self, how: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.over_at = self._clock.now()
        self._took_s = self.over_at - self._began_at
        log.info("recovery is over after %.1f s: %s", self._took_s, how)
        self._tell(self._over)
        self._tell(self._back)

    @staticmethod
    def _tell(listeners: list[Callable[[], None]]) -> None:
        for listener in listeners:
            listener()
