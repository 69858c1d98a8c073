"""Detached work as the journal has it: requests, what lists show of them, and outcomes, in both directions."""

from __future__ import annotations

from array import array
from dataclasses import replace

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from sage.controlplane.v1 import common_pb2, inference_pb2, record_pb2
from sage_media.kinds import MediaKind
from sage_wire import durations
from sage_wire.metadata import TRACEPARENT, TRACESTATE
from scheduler_svc.control.detached.codec import DecodedRequest, Unreadable
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, Outcome, RecordedFailure, SloOutcome
from scheduler_svc.transport import events, media, request_records, sampling_params
from scheduler_svc.transport.enums import FINISH_REASON_FROM_WIRE
from scheduler_svc.transport.errors import to_status
from scheduler_svc.transport.request_views import view


class DetachedRecords:
    """Implements ``control.detached.codec.Codec`` with the contract's messages."""

    def encode(self, live: LiveRequest) -> bytes:
        """Return a request with its whole content."""
        request, headers = live.request, live.request.trace_headers
        made = request_records.described(live, request, request.arrived_at)
        made.sampling.CopyFrom(sampling_params.to_wire(request.sampling))
        trace = common_pb2.TraceContext(
            traceparent=headers.get(TRACEPARENT, ""), tracestate=headers.get(TRACESTATE, "")
        )
        record = record_pb2.DetachedRecord(
            request=made,
            prompt_token_ids=request.prompt_token_ids,
            adapter=request.adapter,
            trace_context=trace,
            images=media.to_wire(request.media, MediaKind.IMAGE),
            audio=media.to_wire(request.media, MediaKind.AUDIO),
            image_tokens=request.media_tokens,
        )
        return record.SerializeToString()

    def encode_about(self, live: LiveRequest, accepted_at: float) -> bytes:
        """Return what a list shows of a request.  ``accepted_at``: seconds since 1970."""
        made = view(live, accepted_at - live.request.arrived_at)
        made.ClearField("state")
        made.ClearField("ended_at")
        made.detached = True
        return made.SerializeToString()

    def decode(self, content: bytes, *, arrived_at: float, deadline_at: float | None) -> DecodedRequest:
        """Return the request of its content; its times are seconds on the control clock.  Raises Unreadable."""
        record = record_pb2.DetachedRecord()
        try:
            record.MergeFromString(content)
            made = record.request
            request = request_records.request_of(
                made,
                made.sampling,
                array("I", record.prompt_token_ids),
                record.adapter,
                record.trace_context,
                arrived_at,
                deadline_at,
            )
            request = replace(request, media=media.from_wire(record), media_tokens=record.image_tokens)
        except (DecodeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise Unreadable(f"its content cannot be read: {error!r}") from error
        return DecodedRequest(request=request, digest=made.digest, warnings=tuple(made.warnings))

    def encode_outcome(self, outcome: Outcome, of_all: Outcome | None = None) -> bytes:
        """Return an outcome; ``of_all``: of choice 0 of several, how the request ended with all of them."""
        if not isinstance(outcome, Finished):
            return record_pb2.DetachedEnd(error=to_status(outcome)).SerializeToString()
        made = record_pb2.DetachedEnd(finished=events.finished(outcome).finished)
        if of_all is not None and not isinstance(of_all, Finished):
            made.error_of_request.CopyFrom(to_status(of_all))
        return made.SerializeToString()

    def decode_outcome(self, outcome: bytes) -> Outcome:
        """Return the outcome that was encoded, an error as ``RecordedFailure``.  Raises Unreadable."""
        made = record_pb2.DetachedEnd()
        try:
            made.MergeFromString(outcome)
        except DecodeError as error:
            raise Unreadable(f"its end cannot be read: {error!r}") from error
        if made.HasField("finished"):
            return _finished(made.finished)
        return RecordedFailure(made.error.message, made.error.SerializeToString())


def error_of(outcome: bytes) -> status_pb2.Status | None:
    """Return the error of a request by choice 0's encoded outcome; None if it has none, or another version wrote it."""
    try:
        made = record_pb2.DetachedEnd.FromString(outcome)
    except DecodeError:
        return None
    if made.HasField("error"):
        return made.error
    return made.error_of_request if made.HasField("error_of_request") else None


def _finished(wire: inference_pb2.Finished) -> Finished:
    timings = wire.timings
    return Finished(
        finish_reason=FINISH_REASON_FROM_WIRE.get(wire.finish_reason, ""),
        stop_string=wire.stop_string,
        stop_token_id=wire.stop_token_id if wire.HasField("stop_token_id") else None,
        prompt_tokens=wire.usage.prompt_tokens,
        completion_tokens=wire.usage.completion_tokens,
        cached_prompt_tokens=wire.usage.cached_prompt_tokens,
        attempts=wire.attempts,
        queue_s=durations.from_wire(timings.queue),
        ttft_s=_measured(timings, "time_to_first_token"),
        prefill_s=_measured(timings, "prefill"),
        transfer_s=_measured(timings, "transfer"),
        decode_s=_measured(timings, "decode"),
        total_s=durations.from_wire(timings.total),
        cost=wire.cost,
        slo=tuple(_slo(each) for each in wire.slo),
    )


def _measured(timings: common_pb2.Timings, name: str) -> float | None:
    return durations.from_wire(getattr(timings, name)) if timings.HasField(name) else None  # type: ignore[arg-type]


def _slo(wire: inference_pb2.SloResult) -> SloOutcome:
    return SloOutcome(
        target=wire.target,
        wanted_s=durations.from_wire(wire.wanted),
        measured_s=durations.from_wire(wire.measured),
        met=wire.met,
    )
