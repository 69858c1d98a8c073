"""Goes on with the detached work of an earlier scheduler: what executors hold is adopted, the rest is queued again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sage_common.clock import Clock
from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.detached.codec import Codec, Unreadable
from scheduler_svc.control.detached.detached_work import DetachedWork
from scheduler_svc.control.detached.recalled import unfinished, with_output
from scheduler_svc.control.journal.detached import DetachedEnd, StoredRequest
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.errors import GenerationFailed
from scheduler_svc.domain.request import RequestKey, RequestState

log = logging.getLogger(__name__)

QUEUED_PER_TURN = 16
"""Requests that are queued again in one turn of the event loop."""

SWEEP_S = 0.1
"""Seconds from the return of an instance until requests are looked for that cannot come back any more."""

RETRY_S = 1.0
"""Seconds until the end of a request that cannot go on is written down again."""


class Restoration:
    """The detached requests that had not ended when an earlier scheduler stopped, and do not go on here yet."""

    def __init__(
        self,
        work: DetachedWork,
        codec: Codec,
        clock: Clock,
        requests: RequestTable,
        runner: RequestRunner,
        recovery: Recovery,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._work = work
        self._codec = codec
        self._clock = clock
        self._requests = requests
        self._runner = runner
        self._recovery = recovery
        self._observer = observer
        self._unreadable: list[tuple[StoredRequest, str]] = []  # and why
        self._waiting: dict[RequestKey, StoredRequest] = {}  # by the key of choice 0
        self._changed = asyncio.Event()  # fewer requests may come back with their executors
        recovery.on_back(self._changed.set)

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, stored: Sequence[StoredRequest]) -> None:
        """Take the requests that ``DetachedWork.load`` returned."""
        self._waiting.update((each.request.key, each) for each in stored)
        if stored:
            log.info("%d detached requests of an earlier scheduler go on", len(stored))

    def refuses(self, held: HeldRequest) -> str:
        """Return why an attempt is not to be adopted, by what the journal has of its request; empty if it may be."""
        key = _lead(held.request.key)
        end = self._work.end_of(key)
        if end is not None:
            return f"the journal has its end: {end.state.value}"
        kept = self._kept_of(held.request.key)
        if kept is None:
            return ""
        name, tokens = kept
        if held.attempt.name < name or held.attempt.tokens < tokens:
            return f"a later attempt has {tokens} tokens in the journal"
        if held.request.sampling.logprobs is not None and held.delivered > tokens:
            return f"nobody has the log probabilities of its tokens from {tokens} to {held.delivered}"
        return ""

    def waits(self, key: RequestKey) -> bool:
        """Return whether a request is in the journal and does not go on here yet."""
        return _lead(key) in self._waiting

    def adopt(self, held: HeldRequest) -> LiveRequest | None:
        """Return the live request of an attempt that is adopted, with the output of the journal; None if not there.

        Of several choices it is choice 0, and what is known of the attempt is not noted yet.
        """
        stored = self._waiting.pop(_lead(held.request.key), None)
        if stored is None:
            return None
        live = with_output(stored, held.request, held.warnings, self._work.wall_s())
        if live.choices is not None:
            self._begin(live, stored)
            return live
        live.identity, live.cost, live.attempts_before = held.identity, held.cost, held.attempts
        live.first_token_at = held.first_token_at
        self._begin(live, stored)
        return live

    async def run(self) -> None:
        """Queue again what was not adopted, each request as soon as no executor may come back with it."""
        while self._recovery.open and self._waiting:
            self._changed.clear()
            await self._queue_all()
            await self._changed.wait()
            await self._clock.sleep(SWEEP_S)  # instances come back many at a time
        await self._queue_all()
        while self._unreadable:  # last: the others need not wait for the journal
            await self._give_up(*self._unreadable.pop())

    # --- inside -----------------------------------------------------------------------------------

    def _kept_of(self, key: RequestKey) -> tuple[tuple[int, int], int] | None:
        """Return the attempt that made the last token which the journal had of a choice, and how many it had.

        None if the journal did not have the request, or if it is one of a single choice that goes on already.
        """
        stored = self._waiting.get(_lead(key))
        if stored is not None:
            kept = stored.choice(key.choice)
            return (kept.facts.epoch, kept.facts.attempt_number), kept.tokens
        live = self._work.live(key)
        if live is None or live.choices is None or live.restored is None:
            return None
        return live.restored.name, live.restored.tokens

    def _begin(self, live: LiveRequest, stored: StoredRequest) -> None:
        for each in self._work.begin(live, stored.request.keep_s):
            each.publish(len(each.live.output))

    async def _queue_all(self) -> None:
        """Queue the requests that cannot come back any more, a few per turn of the event loop."""
        lost = [key for key, each in self._waiting.items() if not self._recovery.may_return(key, each.request.model)]
        count = 0
        for start in range(0, len(lost), QUEUED_PER_TURN):
            for key in lost[start : start + QUEUED_PER_TURN]:
                stored = self._waiting.pop(key, None)  # None: adopted meanwhile
                if stored is not None:
                    self._queue(stored)
                    count += 1
            await self._clock.sleep(0)
        if count:
            log.info("%d detached requests of an earlier scheduler are queued again", count)

    def _queue(self, stored: StoredRequest) -> None:
        """Queue a request from its last checkpoint on."""
        try:
            live = unfinished(stored, self._codec, self._work.wall_s())
        except Unreadable as error:
            self._unreadable.append((stored, str(error)))
            return
        self._begin(live, stored)
        for each in live.members:
            each.observed = self._observer.adopted(each, None, self._clock.now())
            self._requests.admit(each)
            tokens = len(each.output)
            each.note(self._clock.now(), "restored", f"from the journal, after {tokens} output tokens")
            self._runner.enqueue(each)

    async def _give_up(self, stored: StoredRequest, why: str) -> None:
        """End a request that this version cannot read."""
        log.error("detached request %s cannot go on: %s", stored.request.key, why)
        error, now = GenerationFailed(why, attempts=stored.facts.attempts), self._work.wall_now()
        end = DetachedEnd(
            state=RequestState.FAILED,
            outcome=self._codec.encode_outcome(error),
            tail="",
            ended_at=now,
            keep_until=now + stored.request.keep_s,
        )
        while True:
            try:
                await self._work.give_up(stored, end)
                return
            except Exception as failure:
                log.error("the end of %s cannot be written down: %s", stored.request.key, failure)
                await self._clock.sleep(RETRY_S)


def _lead(key: RequestKey) -> RequestKey:
    """Return the key of choice 0 of a request."""
    return key._replace(choice=0)
