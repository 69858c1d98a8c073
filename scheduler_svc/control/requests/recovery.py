"""Whether requests of an earlier scheduler may still come back with their executors."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sage_common.clock import Clock, Timer
from scheduler_svc.control.requests.live_request import AdoptedAttempt, LiveRequest
from scheduler_svc.domain.errors import OutputLost, Recovering

log = logging.getLogger(__name__)

RETRY_S = 0.25
"""After how many seconds a caller whose request is not known yet is asked to try again."""


class Recovery:
    """Open from the start until all instances that an earlier scheduler saw are back, or a time limit."""

    def __init__(self, clock: Clock, expected: frozenset[str], limit_s: float) -> None:
        """Begin to wait for the instances that had a session when an earlier scheduler died.

        ``expected``: their ids; empty: nothing is waited for.  ``limit_s``: after these seconds the wait is over.
        """
        self._clock = clock
        self._missing = set(expected)
        self._over: list[Callable[[], None]] = []
        self._timer: Timer | None = None
        self._began_at = clock.now()
        if expected:
            log.info("recovering: %d instances of an earlier scheduler may come back", len(expected))
            self._timer = clock.call_at(self._began_at + limit_s, self._limit)

    @property
    def missing(self) -> bool:
        """Whether an instance has not come back: what it held may be lost."""
        return bool(self._missing)

    @property
    def open(self) -> bool:
        """Whether requests may still come back."""
        return self._timer is not None

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` once, when nothing comes back any more; not if nothing was waited for."""
        self._over.append(listener)

    def check(self) -> None:
        """Raise Recovering if a request that is not known may still come back."""
        if self.open:
            raise Recovering(RETRY_S)

    def check_position(
        self, live: LiveRequest, adopted: AdoptedAttempt, after_token: int, after_attempt: tuple[int, int] | None
    ) -> None:
        """Check that an adopted request goes on with the tokens that a reader would get after those that it has.

        Raises Recovering if that is not known yet, OutputLost if the reader has tokens of a later attempt, which is
        gone, or more than anyone holds.
        """
        have = len(live.output)
        if after_token > have:
            if have < adopted.tokens and live.outcome is None:
                raise Recovering(RETRY_S)  # its executor sends the output again
            raise OutputLost(f"it has {have} output tokens")
        if after_attempt is None:
            another = self.open or self.missing  # the attempt that made its tokens may be on an instance that is gone
        else:
            another = adopted.name < after_attempt and after_attempt[0] <= adopted.epoch
        if another and self.open:
            raise Recovering(RETRY_S)
        if another:
            raise OutputLost("the attempt that made its last tokens is gone with its executor")

    def back(self, instance_id: str) -> None:
        """Note that an instance came back and everything it held is adopted or refused."""
        self._missing.discard(instance_id)
        if self.open and not self._missing:
            self._end("all instances are back")

    def _limit(self) -> None:
        self._end(f"{len(self._missing)} instances did not come back: {', '.join(sorted(self._missing)[:8])}")

    def _end(self, how: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        log.info("recovery is over after %.1f s: %s", self._clock.now() - self._began_at, how)
        for listener in self._over:
            listener()
