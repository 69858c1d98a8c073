"""The calls of InferenceService about detached work: Submit, Attach, Get, List."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.access.caller import caller
from scheduler_svc.control.detached.detached_work import DetachedWork
from scheduler_svc.control.journal.detached import DetachedSummary, ListedRequest, Page
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, NoJournal
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.transport import events, request_views
from scheduler_svc.transport.detached_records import error_of
from scheduler_svc.transport.enums import REQUEST_STATE_FROM_WIRE, REQUEST_STATE_TO_WIRE
from scheduler_svc.transport.request_limits import NAME_BYTES
from scheduler_svc.transport.submissions import DEFAULT_TENANT, key_seen, last_attempt, read_from, submission
from scheduler_svc.transport.violations import Violations

PAGE_SIZE = 100
PAGE_LIMIT = 1_000
PAGE_BYTES = 2 * 2**20  # at which a page ends, whatever its size: clients take 4 MiB by default
STATES_LIMIT = 16
TOKEN_BYTES = 2_048  # of a page token
_TIME = struct.Struct("<d")


class DetachedServicer:
    """Answers through the intake and what the journal has."""

    def __init__(
        self, intake: Intake, loop_lag: LoopLag, work: DetachedWork | None, wall_s: Callable[[], float]
    ) -> None:
        """``work``: None without a journal.  ``wall_s``: seconds since 1970 at the control clock's zero."""
        self._intake = intake
        self._loop_lag = loop_lag
        self._work = work
        self._wall_s = wall_s

    async def submit(
        self, request: inference_pb2.SubmitRequest, trace_headers: Mapping[str, str]
    ) -> inference_pb2.SubmitResponse:
        """Accept detached work once it is written down.

        Raises PermissionDenied for a tenant that is not the caller's, and what ``Intake.leave_behind`` raises.
        """
        tenant = caller().tenant_for(request.tenant)
        made = await submission(request, trace_headers, tenant=tenant)
        del request
        live, attached = await self._intake.leave_behind(made)
        wait_s = self._intake.expected_wait_s(live)
        accepted = events.accepted(live, attached=attached, expected_wait_s=wait_s).accepted
        return inference_pb2.SubmitResponse(accepted=accepted)

    async def attach(self, request: inference_pb2.AttachRequest) -> Subscription:
        """Return what waits for a request's events.

        Raises RequestNotFound, Recovering, OutputLost, JournalUnavailable, InvalidRequest (a position past the output).
        """
        key = key_seen(caller(), request.tenant, request.request_id)
        violations = Violations()
        after = read_from(request.after, violations)
        if violations:
            raise InvalidRequest(violations)
        live = await self._intake.known.find(key)
        _check_position(live, request.after_token)
        subscription = Subscription(self._loop_lag)
        last, takes_choices = last_attempt(request), request.takes_choices
        self._intake.readers.attach(
            key, subscription, request.after_token, last, after=after, takes_choices=takes_choices
        )
        return subscription

    async def cancelled(self, live: LiveRequest) -> None:
        """Wait until the end of a request that was cancelled is written down.  Raises JournalUnavailable."""
        if self._work is not None:
            await self._work.until_ended(live)

    async def get(self, request: inference_pb2.GetRequest) -> inference_pb2.GetResponse:
        """Return the state of a request, and the result of detached work that ended.

        Raises RequestNotFound, Recovering, JournalUnavailable.
        """
        key = key_seen(caller(), request.tenant, request.request_id)
        live = await self._intake.known.find(key)
        answer = inference_pb2.GetResponse(request=self._view(live))
        if live.journaled and live.whole_published_outcome is not None:
            result = request_views.result(live)
            if result is None:
                answer.result_in_pieces = True
            else:
                answer.result.CopyFrom(result)
        return answer

    async def list(self, request: inference_pb2.ListRequest) -> inference_pb2.ListResponse:
        """Return a page of a tenant's detached work, the latest first.

        Raises InvalidRequest, NoJournal, JournalUnavailable, PermissionDenied.
        """
        if self._work is None:
            raise NoJournal
        tenant = caller().tenant_for(request.tenant) or DEFAULT_TENANT
        page = _page(request, tenant)
        found = await self._work.page(page)
        answer, size = inference_pb2.ListResponse(), 0
        for index, listed in enumerate(found, start=1):
            view = self._listed(listed)
            if not request.states or view.state in request.states:
                answer.requests.append(view)
                size += view.ByteSize()
            if index == page.limit or (size >= PAGE_BYTES and index < len(found)):
                answer.next_page_token = _token(listed.summary)
                break
        return answer

    # --- inside -----------------------------------------------------------------------------------

    def _view(self, live: LiveRequest) -> inference_pb2.RequestView:
        view = request_views.view(live, self._wall_s())
        self._add_end(view, live.key)
        return view

    def _listed(self, listed: ListedRequest) -> inference_pb2.RequestView:
        """Return the view of a request on a page: as it is now if it is live, else as the journal has it."""
        summary = listed.summary
        live = self._work.live(summary.key) if self._work is not None else None
        if live is not None:
            return self._view(live)
        view = inference_pb2.RequestView.FromString(listed.about)
        view.state = REQUEST_STATE_TO_WIRE[summary.state or RequestState.QUEUED]
        view.usage.completion_tokens = summary.output_tokens
        error = error_of(listed.outcome)
        if error is not None:
            view.error.CopyFrom(error)
        if summary.ended_at is not None:
            view.ended_at.CopyFrom(request_views.timestamp(summary.ended_at))
        if summary.keep_until is not None:
            view.keep_until.CopyFrom(request_views.timestamp(summary.keep_until))
        return view

    def _add_end(self, view: inference_pb2.RequestView, key: RequestKey) -> None:
        end = self._work.end_of(key) if self._work is not None else None
        if end is not None:
            view.ended_at.CopyFrom(request_views.timestamp(end.ended_at))
            view.keep_until.CopyFrom(request_views.timestamp(end.keep_until))


def _check_position(live: LiveRequest, after_token: int) -> None:
    """Raise InvalidRequest for a position past the output of a request that has ended."""
    have = len(live.published)
    if live.published_outcome is not None and after_token > have:
        raise _invalid("after_token", f"is {after_token}; the request has {have} output tokens")


def _page(request: inference_pb2.ListRequest, tenant: str) -> Page:
    """Return which requests are wanted.  Raises InvalidRequest."""
    if request.page_size > PAGE_LIMIT:
        raise _invalid("page_size", f"is {request.page_size}; the limit is {PAGE_LIMIT}")
    if len(request.states) > STATES_LIMIT:
        raise _invalid("states", f"has {len(request.states)} entries; the limit is {STATES_LIMIT}")
    for field, value in (("tenant", tenant), ("model", request.model)):
        if len(value.encode()) > NAME_BYTES:
            raise _invalid(field, f"has more than {NAME_BYTES} bytes")
        if not value.isprintable():  # PostgreSQL takes no NUL
            raise _invalid(field, "has characters that cannot be printed")
    states = []
    for index, state in enumerate(request.states):
        if state not in REQUEST_STATE_FROM_WIRE:
            raise _invalid(f"states[{index}]", f"{state} is not one of its values")
        states.append(REQUEST_STATE_FROM_WIRE[state])
    return Page(
        tenant=tenant,
        limit=request.page_size or PAGE_SIZE,
        model=request.model,
        states=states,
        before=_before(request.page_token) if request.page_token else None,
    )


def _token(last: DetachedSummary) -> str:
    """Return what names the last request of a page."""
    return base64.urlsafe_b64encode(_TIME.pack(last.accepted_at) + last.key.request_id.encode()).decode()


def _before(token: str) -> tuple[float, str]:
    """Return what a page token names.  Raises InvalidRequest for one that no page gave."""
    try:
        if len(token) > TOKEN_BYTES:
            raise ValueError
        data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        (at,) = _TIME.unpack(data[: _TIME.size])
        request_id = data[_TIME.size :].decode()
        if not request_id.isprintable():
            raise ValueError
        return at, request_id
    except (ValueError, struct.error, binascii.Error):
        raise _invalid("page_token", "is not a token of an earlier page") from None


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field=field, description=description)])
