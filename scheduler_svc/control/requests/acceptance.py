"""The acceptance of a request, which is live from then on and waits in its model's queue."""

from __future__ import annotations

from sage_common.clock import Clock
from scheduler_svc.control.requests.detached_port import DetachedPort
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.policy_failure import announce
from scheduler_svc.control.requests.receipts import Receipts
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.errors import PolicyFailed, QueueFull
from scheduler_svc.domain.scheduler import Scheduler


class Acceptance:
    """Accepts requests whole: with all their choices or not at all."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        receipts: Receipts,
        wakeup: Wakeup,
        detached: DetachedPort | None,
    ) -> None:
        """``detached``: None if there is no journal."""
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._receipts = receipts
        self._wakeup = wakeup
        self._detached = detached

    async def accept(self, live: LiveRequest, submission: Submission, *, returned: bool) -> None:
        """Accept a request, and before that write it down if it is to be detached and there is a journal.

        ``returned``: whether an earlier scheduler accepted it.
        Raises QueueFull, LimitReached, PolicyFailed; of a detached one also TenantLimitReached, JournalUnavailable.
        """
        kept = self._detached if live.detached else None
        if kept is not None:
            await kept.accept(live, submission.keep_result_s)
        try:
            await self._in_time(live, returned=returned)
        except BaseException:
            if kept is not None:
                await kept.withdraw(live)
            raise

    async def _in_time(self, live: LiveRequest, *, returned: bool) -> None:
        """Accept a request now, or after the scheduling pass that is due if the queue is full."""
        try:
            self._accept(live, returned=returned)
        except QueueFull:
            if not self._wakeup.due:
                raise
            # Many requests may arrive before one pass: the queue counts as full if it is so after that.
            await self._wakeup.answered()
            self._accept(live, returned=returned)

    def _accept(self, live: LiveRequest, *, returned: bool) -> None:
        request, now = live.request, self._clock.now()
        try:
            ahead = self._admit(live, now, returned=returned)
        except PolicyFailed as error:
            announce(error, request.key)
            raise
        self._end_displaced()
        ended = self._requests.find(request.key)
        if ended is not None:
            self._requests.forget(ended)
        if returned:
            self._receipts.use(live.key)
        for each in live.members:
            self._requests.admit(each)
            each.note(request.arrived_at, "accepted", f"{request.prompt_tokens} prompt tokens for {request.model}")
            if returned:
                each.note(now, "returned", f"accepted by an earlier scheduler {now - request.arrived_at:.1f} s ago")
            if ahead:
                each.note(now, "queued", ahead)
            each.observed.accepted(each, now)
        self._wakeup.notify()

    def _admit(self, live: LiveRequest, now: float, *, returned: bool) -> str:
        """Let a request wait with all its choices, or none of them; return what it waits for, in words."""
        ahead = ""
        for each in live.members:
            try:
                found = self._scheduler.admit(each.request, now, accepted_before=returned)
            except BaseException:
                for admitted in live.members[: each.key.choice]:
                    self._scheduler.withdraw(admitted.key, now)
                raise
            ahead = ahead or found
        return ahead

    def _end_displaced(self) -> None:
        """End the requests that made room for one that was accepted."""
        for key, error in self._scheduler.take_displaced():
            displaced = self._requests.find(key)
            if displaced is not None:
                self._requests.end(displaced, error)
