"""Converts the frames of the output stream to the wire, and acknowledgements from it.

Every token passes here: one message per engine step, and no object per token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from executor_svc.runtime.engine_port import TokenLogprob
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.outputs import Accepted, Ack, Ended, Piece, Rejected, StepFrame
from executor_svc.transport.enums import CAUSE_TO_WIRE, FINISH_TO_WIRE, REJECT_TO_WIRE
from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire import durations


def output_requests(frame: StepFrame, *, step_frames: bool) -> Iterator[executor_pb2.OutputsRequest]:
    """Make the messages of a frame: one StepFrame, or the older messages for a scheduler that does not read it."""
    if step_frames:
        yield executor_pb2.OutputsRequest(step=_step(frame))
    else:
        yield from _older(frame)


def _step(frame: StepFrame) -> executor_pb2.StepFrame:
    epoch, texts, counts = frame.epoch, frame.texts, frame.counts
    text = "".join(texts)
    return executor_pb2.StepFrame(
        epoch=epoch,
        accepted=[_accepted(each, epoch) for each in frame.accepted],
        rejected=[_rejected(each, epoch) for each in frame.rejected],
        attempt_numbers=frame.numbers,
        first_indexes=frame.first_indexes,
        counts=counts if len(frame.token_ids) > len(counts) else (),
        token_ids=frame.token_ids,
        text_lengths=[len(each) for each in texts] if text else (),
        text=text,
        pieces=[_piece(each, epoch) for each in frame.pieces],
        ended=[_ended(each, epoch) for each in frame.ended],
    )


def _older(frame: StepFrame) -> Iterator[executor_pb2.OutputsRequest]:
    for accepted in frame.accepted:
        yield executor_pb2.OutputsRequest(accepted=_accepted(accepted, 0))
    for rejected in frame.rejected:
        yield executor_pb2.OutputsRequest(rejected=_rejected(rejected, 0))
    if frame.numbers or frame.pieces:
        yield executor_pb2.OutputsRequest(frame=_frame(frame))
    for ended in frame.ended:
        yield executor_pb2.OutputsRequest(ended=_ended(ended, 0))


def _frame(frame: StepFrame) -> executor_pb2.Frame:
    found = executor_pb2.Frame()
    start = 0
    for number, first_index, count, text in zip(
        frame.numbers, frame.first_indexes, frame.counts, frame.texts, strict=True
    ):
        token_ids = frame.token_ids[start : start + count]
        start += count
        found.tokens.add(
            epoch=frame.epoch, attempt_number=number, first_index=first_index, token_ids=token_ids, text=text
        )
    found.tokens.extend(_piece(piece, 0) for piece in frame.pieces)
    return found


# --- messages about one attempt; ``implied`` is the epoch that needs not be written ---------------------------------


def _epoch(attempt: AttemptId, implied: int) -> int:
    return 0 if attempt.epoch == implied else attempt.epoch


def _accepted(accepted: Accepted, implied: int) -> executor_pb2.AssignmentAccepted:
    attempt = accepted.attempt
    return executor_pb2.AssignmentAccepted(attempt_number=attempt.number, epoch=_epoch(attempt, implied))


def _rejected(rejected: Rejected, implied: int) -> executor_pb2.AssignmentRejected:
    return executor_pb2.AssignmentRejected(
        attempt_number=rejected.attempt.number,
        epoch=_epoch(rejected.attempt, implied),
        reason=REJECT_TO_WIRE[rejected.reason],
        message=rejected.message,
    )


def _piece(piece: Piece, implied: int) -> executor_pb2.AssignmentTokens:
    tokens = executor_pb2.AssignmentTokens(
        attempt_number=piece.attempt.number,
        epoch=_epoch(piece.attempt, implied),
        first_index=piece.first_index,
        token_ids=piece.token_ids,
        text=piece.text,
        kv_recomputed=piece.kv_recomputed,
    )
    for candidates in piece.logprobs or ():
        tokens.logprobs.append(_logprobs(candidates))
    if piece.prompt is not None:
        tokens.cached_prompt_tokens = piece.prompt.cached_tokens
        tokens.prompt_logprobs.extend(_logprobs(row or []) for row in piece.prompt.logprobs or ())
    return tokens


def _logprobs(candidates: list[TokenLogprob]) -> common_pb2.TokenLogprobs:
    row = common_pb2.TokenLogprobs()
    for candidate in candidates:
        row.candidates.add(token_id=candidate.token_id, logprob=candidate.logprob, rank=candidate.rank)
    return row


def _ended(ended: Ended, implied: int) -> executor_pb2.AssignmentEnded:
    params, ends_at = ended.kv_transfer_params, ended.kv_lease_ends_at
    return executor_pb2.AssignmentEnded(
        attempt_number=ended.attempt.number,
        epoch=_epoch(ended.attempt, implied),
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
        embedding=ended.embedding,
    )


def acks(response: executor_pb2.OutputsResponse, session_epoch: int) -> list[Ack]:
    """Return the acknowledgements of one message; one without an epoch is about an attempt of the session's."""
    return [
        Ack(
            attempt=AttemptId(ack.epoch or session_epoch, ack.attempt_number),
            tokens=ack.tokens,
            ended=ack.ended,
        )
        for ack in response.acks
    ]
