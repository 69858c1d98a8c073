"""How requests of a session are accepted, or attached to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire.metadata import TRACEPARENT, TRACESTATE
from scheduler_svc.access.caller import caller
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.output_reader import OutputReader
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, RequestNotFound
from scheduler_svc.transport import events
from scheduler_svc.transport.client_sessions.handle import Handle
from scheduler_svc.transport.client_sessions.limits import TRACEPARENT_BYTES, TRACESTATE_BYTES
from scheduler_svc.transport.submissions import attempt_name, key_seen, last_attempt, read_from, submission
from scheduler_svc.transport.violations import Violations


class Arrivals:
    """Takes requests through the intake, as ``Generate`` does, and lets their handles begin."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def submit(self, handle: Handle, wire: inference_pb2.Submit) -> None:
        """Accept the request of a handle, or attach to it.

        Raises PermissionDenied for a tenant that is not the caller's, and what ``Intake.enter`` raises.
        """
        made = await _converted(wire)
        del wire  # a request may wait long to be accepted, for a model to load
        await self._intake.enter(made, handle)
        del made
        # A request that can be placed at once reaches its executor before its client gets HandleAccepted.
        await self._intake.first_pass(handle)
        self._accept(handle)

    def in_journal(self, wire: inference_pb2.AttachHandle) -> bool:
        """Return whether the request to attach to has to be read from the journal first."""
        try:
            key = key_seen(caller(), wire.tenant, wire.request_id)
        except RequestNotFound:
            return False  # ``attach`` says so
        return self._intake.known.in_journal(key)

    async def recall(self, handle: Handle, wire: inference_pb2.AttachHandle) -> None:
        """Attach to a request that only the journal has.  Raises what ``attach`` raises, and JournalUnavailable."""
        await self._intake.known.find(key_seen(caller(), wire.tenant, wire.request_id))
        self.attach(handle, wire)

    def attach(self, handle: Handle, wire: inference_pb2.AttachHandle) -> None:
        """Attach to a request by its id alone.  Raises RequestNotFound, InvalidRequest."""
        violations = Violations()
        first, others = _positions(wire.after)
        after = read_from(others, violations)
        if violations:
            raise InvalidRequest(violations)
        key, after_token, last = key_seen(caller(), wire.tenant, wire.request_id), 0, last_attempt(wire)
        if first is not None:
            after_token, last = first.after_token, _attempt_of(first) or last
        self._intake.readers.attach(key, handle, after_token, last, after=after, takes_choices=wire.takes_choices)
        self._accept(handle)

    def _accept(self, handle: Handle) -> None:
        """Tell the handle's client where it begins.  Raises InvalidRequest for a position past a running output."""
        live = handle.live
        for each in (handle, *handle.others):
            _bound(each)
        message = inference_pb2.HandleAccepted(handle=handle.number)
        events.fill_accepted(
            message.accepted,
            live,
            attached=handle.attached,
            expected_wait_s=self._intake.expected_wait_s(live),
            receipt=self._intake.receipts.of(live),
        )
        for choice, each in enumerate((handle, *handle.others)):
            if position := each.position:
                offset = each.live.published.text_offset(position)
                message.positions.add(choice=choice, after_token=position, text_offset=offset)
        handle.accept(message)


def _bound(reader: OutputReader) -> None:
    """Move a reader past the end of an output to the end.  Raises InvalidRequest while the output may grow."""
    live = reader.live
    have = len(live.published)
    if reader.position <= have:
        return
    if live.published_outcome is None:
        description = f"is {reader.position}; the request has {have} output tokens so far"
        raise InvalidRequest([FieldViolation(field="after.after_token", description=description)])
    reader.position = have


async def _converted(wire: inference_pb2.Submit) -> Submission:
    """Convert a Submit; what is wrong with it is in ``violations``.  Raises PermissionDenied."""
    request = wire.request
    violations = Violations()
    headers = _trace_headers(wire.trace_context, violations)
    made = await submission(request, headers, tenant=caller().tenant_for(request.tenant))
    if not wire.after and not violations:
        return made
    first, others = _positions(wire.after)
    after = read_from(others, violations) or made.after
    if first is not None:
        made = replace(made, after_token=first.after_token, after_attempt=_attempt_of(first) or made.after_attempt)
    return replace(made, after=after, violations=(*made.violations, *violations))


def _positions(
    after: Sequence[inference_pb2.ChoicePosition],
) -> tuple[inference_pb2.ChoicePosition | None, Sequence[inference_pb2.ChoicePosition]]:
    """Return the position of choice 0, if it is the first, and those of the others."""
    return (after[0], after[1:]) if after and not after[0].choice else (None, after)


def _attempt_of(position: inference_pb2.ChoicePosition) -> tuple[int, int] | None:
    return attempt_name(position.after_attempt) if position.after_attempt.epoch else None


def _trace_headers(wire: common_pb2.TraceContext, violations: Violations) -> dict[str, str]:
    """Return the caller's trace context as headers; one that is too long is a violation."""
    found = {}
    for name, value, limit in (
        (TRACEPARENT, wire.traceparent, TRACEPARENT_BYTES),
        (TRACESTATE, wire.tracestate, TRACESTATE_BYTES),
    ):
        if len(value) > limit:
            violations.add(f"trace_context.{name}", f"has {len(value)} characters; the limit is {limit}")
        elif value:
            found[name] = value
    return found
