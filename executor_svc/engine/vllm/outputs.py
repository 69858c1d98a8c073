"""Translates vLLM's outputs to the engine port's."""

from __future__ import annotations

import time
from typing import Any

from executor_svc.engine.handoff_seal import sealed
from executor_svc.engine.structured import field_of
from executor_svc.runtime.engine_port import (
    EngineError,
    EngineOutput,
    EngineRequest,
    FinishReason,
    InvalidRequestError,
    TokenLogprob,
)

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "abort": FinishReason.ABORTED,
}


def output_of(result: Any) -> EngineOutput:
    """Return the new tokens of vLLM's RequestOutput with their log probabilities."""
    completion = result.outputs[0]
    output = EngineOutput(token_ids=completion.token_ids)
    if completion.logprobs is not None:
        output.logprobs = [_candidates(row) for row in completion.logprobs]
    return output


def prompt_logprobs_of(result: Any) -> list[list[TokenLogprob] | None] | None:
    """Return the prompt's log probabilities, one entry per prompt token (None for the first); None if not requested."""
    if result.prompt_logprobs is None:
        return None
    return [None if row is None else _candidates(row) for row in result.prompt_logprobs]


def _candidates(row: Any) -> list[TokenLogprob]:
    """Return one position's log probabilities; vLLM puts the chosen token first."""
    return [TokenLogprob(token_id=token_id, logprob=entry.logprob, rank=entry.rank) for token_id, entry in row.items()]


def finish(output: EngineOutput, result: Any, request: EngineRequest) -> None:
    """Set on a request's last output how the request ended and, for a prefill leg, how to fetch its KV.

    Raises InvalidRequestError for a constraint that nothing satisfies, EngineError for any other failed end.
    """
    completion = result.outputs[0]
    reason = _FINISH_REASONS.get(completion.finish_reason)
    if reason is None:
        raise _failed_end(completion, request)
    output.finish_reason = reason
    if request.prefill_only and result.kv_transfer_params:
        output.kv_transfer_params = sealed(result.kv_transfer_params, request.prompt_token_ids, request.adapter)
        # vLLM takes the time in the engine core, on the same monotonic clock as this process.
        output.kv_kept_s = max(0.0, time.monotonic() - result.metrics.last_token_ts)
    if reason is FinishReason.STOP and output.token_ids:
        stop = completion.stop_reason  # None for the model's own end-of-sequence token
        output.stop_token_id = stop if isinstance(stop, int) else output.token_ids[-1]


def _failed_end(completion: Any, request: EngineRequest) -> Exception:
    """Say whose fault it is that vLLM ended a request with "error" while its engine went on.

    Its grammar backends do so where no token satisfies the constraint, at the first token or at a later one.  The other
    cause is KV that could not be fetched.
    """
    constraint = request.sampling.structured_output
    if request.output_history:
        return EngineError("the engine could not go on after the delivered tokens")
    if constraint is not None and request.kv_transfer_params is None:
        why = "no output can satisfy this constraint, or the engine could not compile it"
        return InvalidRequestError(field_of(constraint.kind), why)
    return EngineError(f"the engine ended the request with {completion.finish_reason!r}")
