"""Detached work: accepts it into the journal, writes down what becomes of it, and keeps its results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sage_common.clock import Clock
from scheduler_svc.control.detached.checkpoints import Checkpoints
from scheduler_svc.control.detached.codec import Codec, Unreadable
from scheduler_svc.control.detached.journaled_output import JournaledOutput, output_facts
from scheduler_svc.control.detached.quotas import Quotas
from scheduler_svc.control.detached.recalled import recalled
from scheduler_svc.control.detached.settings import DetachedSettings
from scheduler_svc.control.journal.detached import (
    Checkpoint,
    DetachedEnd,
    DetachedRequest,
    DetachedStore,
    ListedRequest,
    Page,
    StoredRequest,
)
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.timing.time_limit import TimeLimit
from scheduler_svc.domain.errors import DeadlineExceeded, FieldViolation, InvalidRequest, JournalUnavailable, Recovering
from scheduler_svc.domain.request import RequestKey, RequestState

log = logging.getLogger(__name__)

EXPIRY_INTERVAL_S = 5.0
"""Seconds between two looks for results whose time is over."""

END_LIMIT_S = 5.0
"""Seconds that the caller who cancels a request waits until that is written down."""

REMOVED_AT_ONCE = 256
"""Requests that one write deletes at most."""

RETRY_S = 0.25
"""After how many seconds a caller whose request has not gone on yet is asked to try again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptEnd:
    """How a request ended, when, and until when its result is kept, in seconds since 1970."""

    state: RequestState
    ended_at: float
    keep_until: float


class DetachedWork:
    """What the journal has of detached work, and the live requests among it.  Bounded by ``DetachedSettings``.

    Implements ``control.requests.detached_port.DetachedPort``.
    """

    def __init__(
        self,
        store: DetachedStore,
        codec: Codec,
        clock: Clock,
        wall_clock: Callable[[], float],
        settings: DetachedSettings,
        *,
        epoch: int,
    ) -> None:
        """``wall_clock``: seconds since 1970.  ``epoch``: this scheduler's."""
        self._store = store
        self._codec = codec
        self._clock = clock
        self._wall_clock = wall_clock
        self.settings = settings
        self._epoch = epoch
        self._quotas = Quotas(settings)
        self._ends: dict[RequestKey, KeptEnd | None] = {}  # of all that the journal has; None: it has not ended
        self._live: dict[RequestKey, JournaledOutput] = {}  # each choice whose end is not written down yet
        self._to_remove: dict[RequestKey, None] = {}  # what could not be deleted yet
        self._on_end: list[Callable[[LiveRequest], None]] = []
        self._on_removal: list[Callable[[RequestKey], None]] = []
        self._deletions_fail = False  # what was said once is not said again
        self._removals: set[asyncio.Task[None]] = set()
        self._checkpoints = Checkpoints(
            store, clock, epoch=epoch, wall_s=self.wall_s, end=self._end, written=self._was_written
        )

    def __len__(self) -> int:
        """How many requests the journal has."""
        return len(self._ends)

    @property
    def unfinished(self) -> int:
        """How many live requests have no end in the journal yet."""
        return sum(not key.choice for key in self._live)

    async def load(self) -> Sequence[StoredRequest]:
        """Read what the journal has; return the requests that have not ended.  Raises JournalUnavailable."""
        for summary in await self._store.summaries():
            end = None
            if summary.state is not None:
                end = KeptEnd(
                    state=summary.state, ended_at=summary.ended_at or 0.0, keep_until=summary.keep_until or 0.0
                )
            self._ends[summary.key] = end
            self._quotas.add(summary.key, summary.size_bytes)
        return await self._store.unfinished()

    @property
    def default_deadline_s(self) -> float:
        """Deadline after arrival, in seconds, of requests that set none."""
        return self.settings.default_deadline_s

    def on_end(self, listener: Callable[[LiveRequest], None]) -> None:
        """Tell ``listener`` of each live request whose end is written down."""
        self._on_end.append(listener)

    def on_removal(self, listener: Callable[[RequestKey], None]) -> None:
        """Tell ``listener`` of each request that is deleted."""
        self._on_removal.append(listener)

    # --- what is known ----------------------------------------------------------------------------

    def live(self, key: RequestKey) -> LiveRequest | None:
        """Return a request of this scheduler whose end is not written down yet; None if there is none."""
        output = self._live.get(key)
        return output.live if output is not None else None

    def end_of(self, key: RequestKey) -> KeptEnd | None:
        """Return how a request ended by what the journal has; None if it has not, or is not known."""
        return self._ends.get(key)

    def has_ended(self, key: RequestKey) -> bool:
        """Return whether a request's end is written down."""
        return self._ends.get(key) is not None

    def check(self, key: RequestKey) -> None:
        """Raise Recovering if a request of an earlier scheduler has not ended, and does not go on here yet."""
        if key in self._ends and self._ends[key] is None and key not in self._live:
            raise Recovering(RETRY_S)

    async def recall(self, key: RequestKey) -> LiveRequest | None:
        """Return a request that ended, with its result; None if it is not kept.  Raises JournalUnavailable."""
        stored = await self._store.find(key)
        if stored is None or stored.end is None:
            return None
        try:
            return recalled(stored, self._codec, self.wall_s())
        except Unreadable as error:
            raise JournalUnavailable(str(error)) from error

    async def page(self, page: Page) -> Sequence[ListedRequest]:
        """Return some requests of a tenant, the latest first.  Raises JournalUnavailable."""
        return await self._store.page(page)

    def wall_s(self) -> float:
        """Return seconds since 1970 at the control clock's zero."""
        return self._wall_clock() - self._clock.now()

    def wall_now(self) -> float:
        """Return seconds since 1970."""
        return self._wall_clock()

    # --- what becomes of it -----------------------------------------------------------------------

    async def accept(self, live: LiveRequest, keep_s: float | None) -> None:
        """Write a request down; from then on its output and its end are.  ``keep_s``: None: the default.

        One that has ended is written down with its result: its prompt is not here any more to generate it again.

        Raises InvalidRequest, TenantLimitReached, LimitReached, JournalUnavailable; then the request is not kept.
        """
        keep_s = self._checked(keep_s)
        request = self._described(live, keep_s)
        whole = [self._whole(each, keep_s) for each in live.members] if live.all_ended else []
        size = request.size_bytes + sum(each.size_bytes for each in whole)
        self._quotas.check(live.key.tenant, size)
        if live.key in self._to_remove:  # it takes the place of one that was to be deleted
            del self._to_remove[live.key]
            self._quotas.drop(live.key)
        self._quotas.add(live.key, size)
        try:
            await self._store.add(request, whole)
        except BaseException:
            await self._remove([live.key])  # it may be written down all the same
            raise
        if not whole:
            self.begin(live, keep_s)
            return
        assert whole[0].end is not None
        self._ends[live.key] = _kept(whole[0].end)
        for each in live.members:
            each.journaled = each.end_is_published = True

    def begin(self, live: LiveRequest, keep_s: float) -> Sequence[JournaledOutput]:
        """Write down what becomes of a request that the journal has; return each of its choices."""
        outputs = [
            JournaledOutput(each, keep_s, self._clock, self.settings, self._checkpoints.due) for each in live.members
        ]
        self._ends[live.key] = None
        for each in outputs:
            each.choices = outputs
            self._live[each.key] = each
        return outputs

    async def withdraw(self, live: LiveRequest) -> None:
        """Delete a request that was written down, and then not accepted."""
        for each in live.members:
            output = self._live.pop(each.key, None)
            if output is not None:
                output.stop()
                self._checkpoints.drop(output)
        await self._remove([live.key])

    async def until_ended(self, live: LiveRequest) -> None:
        """Wait until the end of a request that has ended is written down, if the journal has it.

        Raises JournalUnavailable if that takes longer than END_LIMIT_S.
        """
        output = self._live.get(live.lead.key)
        if output is None or output.live is not live.lead:
            return
        try:
            async with TimeLimit(self._clock, self._clock.now() + END_LIMIT_S, "while its end was written down"):
                await output.ended.wait()
        except DeadlineExceeded:
            raise JournalUnavailable(f"the request's end is not written down after {END_LIMIT_S:g} s") from None

    def freeze(self) -> None:
        """Write nothing more about live requests: they go on with the next scheduler."""
        self._checkpoints.freeze()

    async def give_up(self, stored: StoredRequest, end: DetachedEnd) -> None:
        """Write down the end of a request that cannot go on.  Raises JournalUnavailable."""
        checkpoint = Checkpoint(key=stored.request.key, facts=stored.facts, piece=None, end=end)
        await self._store.save([checkpoint])
        self._ends[checkpoint.key] = _kept(end)

    # --- background tasks -------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down what becomes of live requests, until cancelled."""
        await self._checkpoints.run()

    async def expire(self) -> None:
        """Delete results whose time is over, until cancelled."""
        while True:
            await self._clock.sleep(EXPIRY_INTERVAL_S)
            while keys := list(islice(self._over(self._wall_clock()), REMOVED_AT_ONCE)):
                await self._remove(keys)
                if self._deletions_fail:
                    break

    # --- inside -----------------------------------------------------------------------------------

    def _over(self, now: float) -> Iterator[RequestKey]:
        """Yield the requests that are to be deleted."""
        yield from self._to_remove
        for key, end in self._ends.items():
            if end is not None and end.keep_until <= now and key not in self._to_remove:
                yield key

    def _checked(self, keep_s: float | None) -> float:
        limit_s = self.settings.keep_result_limit_s
        if keep_s is None:
            return min(self.settings.keep_result_s, limit_s)
        if not 0 < keep_s <= limit_s:
            description = f"is {keep_s:g} s; it must be positive and at most {limit_s:g} s"
            raise InvalidRequest([FieldViolation(field="keep_result", description=description)])
        return keep_s

    def _described(self, live: LiveRequest, keep_s: float) -> DetachedRequest:
        request, wall_s = live.request, self.wall_s()
        accepted_at = request.arrived_at + wall_s
        return DetachedRequest(
            key=live.key,
            digest=live.digest,
            model=request.model,
            content=self._codec.encode(_with_input(live)),
            about=self._codec.encode_about(live, accepted_at),
            accepted_at=accepted_at,
            deadline_at=None if request.deadline_at is None else request.deadline_at + wall_s,
            keep_s=keep_s,
        )

    def _whole(self, live: LiveRequest, keep_s: float) -> Checkpoint:
        """Return the output and the end of a choice whose request has ended."""
        tokens = len(live.output)
        return Checkpoint(
            key=live.key,
            facts=output_facts(live, tokens, self._epoch, self.wall_s()),
            piece=live.output.piece(0, tokens) if tokens else None,
            end=self._ended(live, keep_s),
        )

    def _end(self, output: JournaledOutput) -> DetachedEnd:
        return self._ended(output.live, output.keep_s)

    def _ended(self, live: LiveRequest, keep_s: float) -> DetachedEnd:
        now = self._wall_clock()
        assert live.outcome is not None
        leads = live.lead is live
        return DetachedEnd(
            state=live.whole_state if leads else live.state,
            outcome=self._codec.encode_outcome(live.outcome, live.whole_outcome if leads else None),
            tail=live.output.tail,
            ended_at=now,
            keep_until=now + keep_s,
        )

    def _was_written(self, output: JournaledOutput, checkpoint: Checkpoint) -> None:
        if self._live.get(output.key) is not output:
            return  # it was withdrawn meanwhile
        self._quotas.add(output.lead.key, checkpoint.size_bytes)
        end = checkpoint.end
        if end is not None:
            if output is output.lead:
                self._ends[output.key] = _kept(end)
            del self._live[output.key]
        output.saved(checkpoint)
        for listener in self._on_end if end is not None else ():
            listener(output.live)

    async def _remove(self, keys: Sequence[RequestKey]) -> None:
        """Delete requests, also if the caller is cancelled meanwhile; what cannot be deleted now is tried again."""
        for key in keys:
            self._to_remove[key] = None
        removal = asyncio.get_running_loop().create_task(self._delete(keys), name="detached work: deletion")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
        await asyncio.shield(removal)

    async def _delete(self, keys: Sequence[RequestKey]) -> None:
        try:
            await self._store.remove(keys)
        except Exception as error:
            if not self._deletions_fail:
                log.error("%d detached requests cannot be deleted: %s; it is tried again", len(keys), error)
            self._deletions_fail = True
            return
        self._deletions_fail = False
        for key in keys:
            if key in self._to_remove:  # else it was accepted anew meanwhile
                del self._to_remove[key]
                self._ends.pop(key, None)
                self._quotas.drop(key)
                for listener in self._on_removal:
                    listener(key)


def _with_input(live: LiveRequest) -> LiveRequest:
    """Return a choice whose prompt is still here, as the next scheduler makes all of them of any; else choice 0."""
    return next((each for each in live.members if not each.state.ended), live)


def _kept(end: DetachedEnd) -> KeptEnd:
    return KeptEnd(state=end.state, ended_at=end.ended_at, keep_until=end.keep_until)
