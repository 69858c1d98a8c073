"""Converts the messages of the output stream to the wire, and acknowledgements from it.

Every token passes through here: one call per engine step, few allocations per attempt.
"""

from __future__ import annotations

import asyncio
import json

from executor_svc.runtime.engine_port import TokenLogprob
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ack,
    Ended,
    Frame,
    OutputUp,
    Rejected,
)
from executor_svc.transport.enums import CAUSE_TO_WIRE, FINISH_TO_WIRE, REJECT_TO_WIRE
from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire import durations


def output_request(message: OutputUp) -> executor_pb2.OutputsRequest:
    """Make a message of the output stream."""
    match message:
        case Frame():
            return _frame(message)
        case Accepted():
            accepted = executor_pb2.AssignmentAccepted(attempt_number=message.attempt_number)
            return executor_pb2.OutputsRequest(accepted=accepted)
        case Rejected():
            rejected = executor_pb2.AssignmentRejected(
                attempt_number=message.attempt_number,
                reason=REJECT_TO_WIRE[message.reason],
                message=message.message,
            )
            return executor_pb2.OutputsRequest(rejected=rejected)
        case Ended():
            return executor_pb2.OutputsRequest(ended=_ended(message))


def _frame(frame: Frame) -> executor_pb2.OutputsRequest:
    request = executor_pb2.OutputsRequest()
    add = request.frame.tokens.add
    for piece in frame.pieces:
        tokens = add(
            attempt_number=piece.attempt_number,
            first_index=piece.first_index,
            token_ids=piece.token_ids,
            text=piece.text,
            kv_recomputed=piece.kv_recomputed,
        )
        if piece.logprobs is not None:
            for candidates in piece.logprobs:
                tokens.logprobs.append(_logprobs(candidates))
    if not frame.pieces:
        request.frame.SetInParent()
    return request


def _logprobs(candidates: list[TokenLogprob]) -> common_pb2.TokenLogprobs:
    row = common_pb2.TokenLogprobs()
    for candidate in candidates:
        row.candidates.add(token_id=candidate.token_id, logprob=candidate.logprob, rank=candidate.rank)
    return row


def _ended(ended: Ended) -> executor_pb2.AssignmentEnded:
    params, ends_at = ended.kv_transfer_params, ended.kv_lease_ends_at
    return executor_pb2.AssignmentEnded(
        attempt_number=ended.attempt_number,
        cause=CAUSE_TO_WIRE[ended.cause],
        finish_reason=FINISH_TO_WIRE[ended.finish_reason],
        stop_string=ended.stop_string,
        stop_token_id=ended.stop_token_id,
        total_tokens=ended.total_tokens,
        trailing_text=ended.trailing_text,
        cached_prompt_tokens=ended.cached_prompt_tokens,
        field=ended.field_name,
        message=ended.message,
        kv_transfer_params=b"" if params is None else json.dumps(params).encode(),
        kv_lease=None if ends_at is None else durations.to_wire(ends_at - asyncio.get_running_loop().time()),
        engine_time=durations.to_wire(ended.engine_time_s),
        kv_unclaimed=ended.kv_unclaimed,
        kv_recomputed=ended.kv_recomputed,
        engine_died=ended.engine_died,
    )


def acks(response: executor_pb2.OutputsResponse) -> list[Ack]:
    """Return the acknowledgements of one message."""
    return [Ack(attempt_number=ack.attempt_number, tokens=ack.tokens, ended=ack.ended) for ack in response.acks]
