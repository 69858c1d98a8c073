"""Converts messages about detached work, in both directions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sage.controlplane.v1 import inference_pb2
from sage_client import _decode as decode
from sage_client._durations import Seconds, duration
from sage_client._enums import RequestState
from sage_client._events import Usage
from sage_client._field_faults import FieldFaults
from sage_client._request_info import RequestInfo, RequestStatus, Result


def submit_request(request: inference_pb2.GenerateRequest, keep_result: Seconds | None) -> inference_pb2.SubmitRequest:
    """Encode a submission of detached work.  Raises InvalidRequestError."""
    made = inference_pb2.SubmitRequest(
        request_id=request.request_id or f"req-{uuid.uuid4().hex}", tenant=request.tenant, spec=request.spec
    )
    faults = FieldFaults()
    if keep_result is not None:
        with faults.at("keep_result"):
            made.keep_result.CopyFrom(duration(keep_result))
    faults.raise_any()
    return made


def states(wanted: Iterable[RequestState | str]) -> list[inference_pb2.RequestState.ValueType]:
    """Encode states.  Raises ValueError for a name that is none."""
    return [inference_pb2.RequestState.Value(f"REQUEST_STATE_{RequestState(each).name}") for each in wanted]


def info(message: inference_pb2.RequestView) -> RequestInfo:
    """Decode a request as the scheduler knows it."""
    return RequestInfo(
        request_id=message.request_id,
        tenant=message.tenant,
        model=message.model,
        priority=decode.priority(message.priority),
        state=decode.request_state(message.state),
        error=message.error.message,
        usage=Usage(
            prompt_tokens=message.usage.prompt_tokens,
            completion_tokens=message.usage.completion_tokens,
            cached_prompt_tokens=message.usage.cached_prompt_tokens,
        ),
        accepted_at=_time(message.accepted_at),
        ended_at=_time(message.ended_at) if message.HasField("ended_at") else None,
        keep_until=_time(message.keep_until) if message.HasField("keep_until") else None,
        detached=message.detached,
        tags=dict(message.tags),
    )


def status(message: inference_pb2.GetResponse) -> RequestStatus:
    """Decode a request with its result."""
    return RequestStatus(
        request=info(message.request),
        result=_result(message.result) if message.HasField("result") else None,
        result_in_pieces=message.result_in_pieces,
    )


def _result(message: inference_pb2.Result) -> Result:
    return Result(
        text=message.text,
        token_ids=tuple(message.token_ids),
        logprobs=decode.logprobs(message.logprobs),
        finished=decode.finished(message.finished) if message.HasField("finished") else None,
        choices=tuple(_result(each) for each in message.choices),
    )


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
