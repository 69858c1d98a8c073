"""Admission: turns a submission into an accepted request in its model's queue, or refuses it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from sage_common.clock import Clock
from scheduler_svc.control.requests.acceptance import Acceptance
from scheduler_svc.control.requests.arriving import Arriving
from scheduler_svc.control.requests.choices import split
from scheduler_svc.control.requests.detached_port import DetachedPort
from scheduler_svc.control.requests.grace import Grace
from scheduler_svc.control.requests.intake_settings import IntakeSettings
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.known_requests import KnownRequests
from scheduler_svc.control.requests.live_request import LiveRequest, join_choices
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer, RequestObserver
from scheduler_svc.control.requests.outcome import caused_by_service
from scheduler_svc.control.requests.output_reader import OutputReader
from scheduler_svc.control.requests.prompt_memory import (
    PromptMemory,
    size_of_request,
    size_of_submission,
)
from scheduler_svc.control.requests.readers import Readers
from scheduler_svc.control.requests.receipts import Receipts
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_maker import RequestMaker
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.time_limit import TimeLimit
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    NoJournal,
    QueueFull,
    RequestCancelled,
    RequestConflict,
    RequestNotFound,
    SchedulerError,
    ShuttingDown,
)
from scheduler_svc.domain.request import Request, RequestKey, RequestState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

RETURNING_AT_ONCE = 32
"""Requests with receipts that are checked and tokenized at the same time: new ones must not wait for all of them."""


class Intake:
    """Admits requests, and cancels them.

    ``known`` finds those that were admitted before, ``readers`` attaches clients to them.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        tokenizers: Tokenizers,
        models: ModelDirectory,
        loop_lag: LoopLag,
        wakeup: Wakeup,
        settings: IntakeSettings,
        recovery: Recovery,
        ends: KeptEnds,
        receipts: Receipts,
        observer: Observer = NULL_OBSERVER,
        detached: DetachedPort | None = None,
    ) -> None:
        """``detached``: None if there is no journal."""
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._models = models
        self._loop_lag = loop_lag
        self._wakeup = wakeup
        self._settings = settings
        self._observer = observer
        self._detached = detached
        self._maker = RequestMaker(
            scheduler,
            clock,
            tokenizers,
            models,
            recovery,
            settings,
            detached_deadline_s=detached.default_deadline_s if detached is not None else None,
        )
        self._arriving = Arriving()
        self._memory = PromptMemory(settings.prompt_memory)
        self.grace = Grace(clock, requests)
        self.known = KnownRequests(requests, self._arriving, recovery, detached)
        self.readers = Readers(requests, self.known, recovery, self.grace)
        self.ends = ends
        self.receipts = receipts
        self._acceptance = Acceptance(scheduler, clock, requests, receipts, wakeup, detached)
        self._returning = asyncio.Semaphore(RETURNING_AT_ONCE)
        requests.on_end(lambda live, reason: self._forget_prompt(live))
        self._closed: SchedulerError | None = None  # why nothing new is accepted

    async def submit(self, submission: Submission) -> Subscription:
        """Accept a request, or attach to the one that has its id and content; return what waits for its events.

        Raises what ``enter`` raises.
        """
        subscription = Subscription(self._loop_lag)
        await self.enter(submission, subscription)
        return subscription

    async def enter(self, submission: Submission, reader: OutputReader) -> None:
        """Accept a request, or attach to the one that has its id and content; ``reader`` reads it from then on.

        One that the service itself ended is no answer: a submission from the start is accepted anew under its id.

        Raises InvalidRequest, UnknownModel, RequestConflict, RequestNotFound (of a submission that goes on from a
        position, if no request has its id), QueueFull, LimitReached, NoInstance, DeadlineExceeded, ShuttingDown,
        Recovering, OutputLost; of a detached one where there is a journal also TenantLimitReached, JournalUnavailable.
        """
        await self._observed(submission, reader)

    async def leave_behind(self, submission: Submission) -> tuple[LiveRequest, bool]:
        """Accept detached work once it is in the journal; the flag is True if it was accepted before.

        Raises what ``enter`` raises, and NoJournal.
        """
        if self._detached is None:
            raise NoJournal
        return await self._observed(submission, None)

    async def _observed(self, submission: Submission, reader: OutputReader | None) -> tuple[LiveRequest, bool]:
        arrived_at = self._clock.now()
        observed = self._observer.arrived(submission, arrived_at)
        try:
            return await self._enter(submission, reader, arrived_at, observed)
        except BaseException as error:
            observed.refused(error, self._clock.now())
            raise

    async def _enter(
        self, submission: Submission, reader: OutputReader | None, arrived_at: float, observed: RequestObserver
    ) -> tuple[LiveRequest, bool]:
        """Return the request, and whether it was accepted before."""
        key = submission.key
        known = await self.known.settled(key, submission.digest)
        if known is not None and not _to_be_served_anew(known, submission):
            if known.digest != submission.digest:
                raise RequestConflict(key.request_id)
            await self._keep(known, submission)
            if reader is not None:
                self.readers.begin(known, reader, submission.after_token, submission.after_attempt, submission.after)
            return known, True
        if known is None:
            fresh = submission.fresh and not submission.after_token
            self.known.check_unknown(key, submission.model, fresh=fresh)
        if known is None and (submission.after_token or any(each.after_token for each in submission.after)):
            raise RequestNotFound(key.request_id)  # another generation would not continue what the caller has
        if self._closed is not None:
            raise self._closed
        returned = self.receipts.arrival(submission)
        if returned is None:
            return await self._arrive(submission, reader, arrived_at, observed), False
        if returned[1] <= arrived_at:
            raise DeadlineExceeded("before it came back to this scheduler")
        async with TimeLimit(self._clock, returned[1], "before it was accepted again"):
            if submission.wait_for_instance and not submission.violations:
                # First, so that those whose model is away do not take the places of the others.
                embeds = submission.embedding is not None
                await self._models.resolve(submission.model, wait=True, until=returned[1], embeds=embeds)
            async with self._returning:
                if key not in self._arriving and self.known.here(key) is known:
                    return await self._arrive(submission, reader, arrived_at, observed, returned), False
        return await self._enter(submission, reader, arrived_at, observed)  # it came twice

    async def _arrive(
        self,
        submission: Submission,
        reader: OutputReader | None,
        arrived_at: float,
        observed: RequestObserver,
        returned: tuple[float, float] | None = None,
    ) -> LiveRequest:
        """Accept a request that is not known.

        ``returned``: when an earlier scheduler accepted it, and its deadline, if it comes back with a receipt.
        """
        key = submission.key
        if len(self._arriving) - self._models.waiting >= self._settings.arriving_limit:
            what = "the queue of requests of all models that are being checked and tokenized"
            raise QueueFull(submission.model, self._settings.arriving_limit, 1.0, what=what)
        self._memory.take(key, size_of_submission(submission))
        try:
            with self._arriving.one(key, submission.digest):
                request, warnings = await self._maker.request(submission, arrived_at)
                if returned is not None:
                    request = replace(request, arrived_at=returned[0], deadline_at=returned[1])
                self._memory.take(key, size_of_request(request))
                live = self._live(request, submission, warnings, observed)
                await self._acceptance.accept(live, submission, returned=returned is not None)
        except BaseException:
            self._memory.give_back(key)
            raise
        if reader is not None:
            reader.begin(live, after_token=submission.after_token, attached=False)
        return live

    def _live(
        self, request: Request, submission: Submission, warnings: tuple[str, ...], observed: RequestObserver
    ) -> LiveRequest:
        """Return the live request of a request or, of several choices, that of choice 0, which has the others."""
        made = [
            LiveRequest(
                request=each,
                digest=submission.digest,
                detached=submission.detached,
                warnings=warnings,
                observed=observed if not each.key.choice else self._observer.arrived(submission, request.arrived_at),
            )
            for each in split(request)
        ]
        if len(made) > 1:
            join_choices(made)
        return made[0]

    async def first_pass(self, reader: OutputReader) -> None:
        """Wait until the scheduling pass after a request's acceptance is over, whether it placed the request or not.

        If it did, the Assign is written to the executor before the caller goes on (``Wakeup.answered``).
        """
        if not reader.attached and reader.live.state is RequestState.QUEUED:
            await self._wakeup.answered()

    async def placed(self) -> None:
        """Wait until the scheduling pass is over that accepted requests are due for (``Wakeup.answered``)."""
        await self._wakeup.answered()

    def _forget_prompt(self, live: LiveRequest) -> None:
        """Count the prompt of a request no more once all its choices have ended."""
        if live.all_ended:
            self._memory.give_back(live.lead.key)

    def cancel(self, key: RequestKey, reason: str) -> tuple[bool, LiveRequest]:
        """Cancel a request; the flag is False if it had ended.  Raises RequestNotFound, Recovering."""
        live = self.known.get(key)
        return self._requests.end(live, RequestCancelled(reason)), live

    def expected_wait_s(self, live: LiveRequest) -> float:
        """Predict how long a request waits for its first placement, in seconds; 0 once it is placed.

        A request that waited before its client attached is predicted as if it had just come.  The request keeps the
        first prediction, which is that of its acceptance.
        """
        queued = live.state is RequestState.QUEUED
        wait_s = self._scheduler.expected_wait_of(live.request, self._clock.now()) if queued else 0.0
        if live.expected_wait_s is None:
            live.expected_wait_s = wait_s
        return wait_s

    def close(self, why: SchedulerError | None = None) -> None:
        """Refuse new requests from here on with ``why``; None: because the scheduler shuts down."""
        self._closed = why or ShuttingDown()

    # --- steps ------------------------------------------------------------------------------------

    async def _keep(self, known: LiveRequest, submission: Submission) -> None:
        """Write a request down that is to be detached from now on, and was not."""
        if self._detached is None or not submission.detached or known.journaled:
            return
        with self._arriving.one(known.key, submission.digest):
            await self._detached.accept(known, submission.keep_result_s)
        for each in known.members:
            each.detached = True
            each.changed()


def _to_be_served_anew(known: LiveRequest, submission: Submission) -> bool:
    """Return whether a submission is accepted anew, though the record has a request of its id and content."""
    same = known.digest == submission.digest and not submission.after_token and not known.journaled
    return same and known.all_ended and caused_by_service(known.whole_outcome)
