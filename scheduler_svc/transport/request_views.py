"""What Get and List show of a request."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import timestamp_pb2

from sage.controlplane.v1 import common_pb2, inference_pb2
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.transport import events
from scheduler_svc.transport.enums import PRIORITY_TO_WIRE, REQUEST_STATE_TO_WIRE
from scheduler_svc.transport.errors import to_status

RESULT_BYTES = 2 * 2**20
"""Largest result that is put into one message; clients take 4 MiB by default."""


def view(live: LiveRequest, wall_s: float) -> inference_pb2.RequestView:
    """Show a request as far as its readers may know it.  ``wall_s``: seconds since 1970 at the control clock's zero."""
    request, outcome = live.request, live.whole_published_outcome
    state = live.whole_state if outcome is not None or not live.whole_state.ended else None
    made = inference_pb2.RequestView(
        request_id=live.key.request_id,
        tenant=live.key.tenant,
        model=request.model,
        priority=PRIORITY_TO_WIRE[request.priority],
        state=inference_pb2.REQUEST_STATE_RUNNING if state is None else REQUEST_STATE_TO_WIRE[state],
        usage=common_pb2.Usage(prompt_tokens=request.prompt_tokens, completion_tokens=_published(live)),
        accepted_at=timestamp(request.arrived_at + wall_s),
        tags=request.tags,
        detached=live.detached,
    )
    ended_at = [each.ended_at for each in live.members if each.ended_at is not None]
    if outcome is not None and ended_at:
        made.ended_at.CopyFrom(timestamp(max(ended_at) + wall_s))
    if isinstance(outcome, Finished):
        made.usage.CopyFrom(events.finished(outcome).finished.usage)
    elif outcome is not None:
        made.error.CopyFrom(to_status(outcome))
    return made


def _published(live: LiveRequest) -> int:
    """Return how many output tokens readers may have, of all choices."""
    return sum(len(each.published) for each in live.members)


def result(live: LiveRequest) -> inference_pb2.Result | None:
    """Return the result of a request whose end is published; None if it is too large for one message."""
    if sum(each.output.size_bytes for each in live.members) > RESULT_BYTES:
        return None
    first, *others = map(_of_choice, live.members)
    first.choices.extend(others)
    return first


def _of_choice(live: LiveRequest) -> inference_pb2.Result:
    output, outcome = live.output, live.published_outcome
    made = inference_pb2.Result(text=output.text, token_ids=output.token_ids)
    for start in range(0, len(output), 1_024):
        for found in output.piece(start, min(len(output), start + 1_024)).logprobs or ():
            made.logprobs.add().MergeFromString(found)
    if isinstance(outcome, Finished):
        made.finished.CopyFrom(events.finished(outcome).finished)
    return made


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """Return a wall-clock time; ``seconds`` are those since 1970."""
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return made
