"""The ends that executors keep until the readers of their requests have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sage_common.clock import Clock, Timer
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

KEPT_S = 60.0
"""Seconds past its end for which an executor keeps an attempt at most; an executor counts them too."""

SETTLES_S = 2.0
"""Seconds after the end of a call of ``Generate`` after which its client is taken to have read it."""

KEPT_PER_INSTANCE = 512
"""Ends that one executor keeps; the oldest is acknowledged for a further one."""

KEPT_BYTES = 32 * 2**20
"""The same in bytes of prompts and outputs."""

LOGPROBS_KEPT = 256
LOGPROBS_BYTES = 2_048
"""Of the log probabilities of one token, about; executors keep those of the last ``LOGPROBS_KEPT`` tokens."""

Name = tuple[int, int]
"""An attempt's epoch and number."""

LEAVING = frozenset({InstanceState.DRAINING, InstanceState.DRAINED})


@dataclass(slots=True, eq=False)
class KeptEnd:
    """The end of a request that its executor still holds."""

    instance_id: str
    acknowledge: Callable[[], None]  # lets the executor forget it
    size: int  # in bytes, about
    until: float  # seconds on the control clock
    attempt: Name | None  # by which the executor knows it; None: a new session does not find it
    unconfirmed: int = 0  # readers that were given the end and have not confirmed it


class KeptEnds:
    """Acknowledges the end of an attempt once all readers of its request have it.

    Until then the scheduler may die: the next one has the executor send the output and the end again.  Readers that
    never come, executors that drain and the bounds release an end without a reader's confirmation.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock, *, on: bool) -> None:
        """``on``: whether a next scheduler could ask executors for what they keep."""
        self._scheduler = scheduler
        self._clock = clock
        self._on = on
        self._kept: dict[LiveRequest, KeptEnd] = {}  # in the order of the ends
        self._of: dict[str, dict[LiveRequest, None]] = {}  # by instance, in the order of the ends
        self._bytes: dict[str, int] = {}  # by instance
        self._named: dict[tuple[str, Name], KeptEnd] = {}  # by instance and attempt
        self._timer: Timer | None = None  # of the oldest
        self.unrecorded: Callable[[LiveRequest], bool] = lambda live: False  # whether an end has to be written down yet

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self, live: LiveRequest, instance_id: str, acknowledge: Callable[[], None], attempt: Name | None = None
    ) -> None:
        """Take the end of a request from an executor; ``acknowledge`` lets the executor forget it.

        ``attempt``: as the executor names it.
        """
        if not self._on or (self._leaves(instance_id) and not self.unrecorded(live)):
            acknowledge()
            return
        self.release(live)
        size = _size(live)
        until = self._clock.now() + KEPT_S
        kept = self._kept[live] = KeptEnd(instance_id, acknowledge, size, until, attempt)
        if attempt is not None:
            self._named[instance_id, attempt] = kept
        self._of.setdefault(instance_id, {})[live] = None
        self._bytes[instance_id] = self._bytes.get(instance_id, 0) + size
        self._bound(instance_id)
        if self._timer is None and self._kept:
            self._timer = self._clock.call_at(until, self._expire)

    def at(self, instance_id: str) -> Iterator[LiveRequest]:
        """Yield the requests whose ends an instance keeps."""
        yield from self._of.get(instance_id, ())

    def attempts(self, instance_id: str) -> dict[Name, LiveRequest]:
        """Return the attempts whose ends an instance keeps."""
        named = ((self._kept[live].attempt, live) for live in self._of.get(instance_id, ()))
        return {attempt: live for attempt, live in named if attempt is not None}

    def came_again(self, instance_id: str, attempt: Name, acknowledge: Callable[[], None]) -> bool:
        """Return whether an end is kept that an executor reports in a new session, where ``acknowledge`` counts."""
        kept = self._named.get((instance_id, attempt))
        if kept is not None:
            kept.acknowledge = acknowledge
        return kept is not None

    def taken(self, live: LiveRequest) -> bool:
        """Note that a reader was given the end; return whether ``confirmed`` or ``lost`` is to follow."""
        kept = self._kept.get(live)
        if kept is None:
            return False
        kept.unconfirmed += 1
        return True

    def confirmed(self, live: LiveRequest) -> None:
        """Note that a reader to which the end was given has it."""
        kept = self._kept.get(live)
        if kept is None:
            return
        kept.unconfirmed -= 1
        if not kept.unconfirmed and not live.readers and not self.unrecorded(live):
            self.release(live)

    def lost(self, live: LiveRequest) -> None:
        """Note that the connection of a reader broke before the reader confirmed the end: it may come again."""
        kept = self._kept.get(live)
        if kept is not None:
            kept.unconfirmed -= 1

    def recorded(self, live: LiveRequest) -> None:
        """Note that an end is written down: no reader is needed for its executor to forget it."""
        self.release(live)

    def settles(self, live: LiveRequest) -> None:
        """Note that a call which cannot confirm was given the end: it counts as confirmed after ``SETTLES_S``."""
        if self.taken(live):
            self._clock.call_at(self._clock.now() + SETTLES_S, lambda: self.confirmed(live))

    def release(self, live: LiveRequest) -> None:
        """Let the executor forget an end, because nothing needs it any more; does nothing for one that is not kept."""
        kept = self._kept.pop(live, None)
        if kept is None:
            return
        of = self._of[kept.instance_id]
        del of[live]
        if kept.attempt is not None:
            self._named.pop((kept.instance_id, kept.attempt), None)
        self._bytes[kept.instance_id] -= kept.size
        if not of:
            del self._of[kept.instance_id], self._bytes[kept.instance_id]
        kept.acknowledge()

    def release_all(self, instance_id: str) -> None:
        """Let an executor forget all ends but those to be written down yet: it leaves, or it is gone."""
        for live in list(self._of.get(instance_id, ())):
            if not self.unrecorded(live):
                self.release(live)

    # --- inside -----------------------------------------------------------------------------------

    def _leaves(self, instance_id: str) -> bool:
        instance = self._scheduler.find_instance(instance_id)
        return instance is None or instance.state in LEAVING

    def _bound(self, instance_id: str) -> None:
        """Release the oldest ends of an instance until the others fit."""
        for live in list(self._of[instance_id]) if self._exceeds(instance_id) else ():
            if not self._exceeds(instance_id):
                return
            if not self.unrecorded(live):
                self.release(live)

    def _exceeds(self, instance_id: str) -> bool:
        of = self._of.get(instance_id)
        return of is not None and (len(of) > KEPT_PER_INSTANCE or self._bytes[instance_id] > KEPT_BYTES)

    def _expire(self) -> None:
        """Release the ends whose time is over, and wait for the next one's."""
        self._timer, now = None, self._clock.now()
        for live, kept in list(self._kept.items()):
            if kept.until > now:
                self._timer = self._clock.call_at(kept.until, self._expire)
                return
            if not self.unrecorded(live):
                self.release(live)


def _size(live: LiveRequest) -> int:
    """Return about how many bytes an executor keeps of an ended request."""
    tokens = len(live.output)
    logprobs = 0 if live.request.sampling.logprobs is None else min(tokens, LOGPROBS_KEPT) * LOGPROBS_BYTES
    vector = len(live.outcome.embedding) if isinstance(live.outcome, Finished) else 0
    return 4 * (live.request.prompt_tokens + tokens) + logprobs + vector
