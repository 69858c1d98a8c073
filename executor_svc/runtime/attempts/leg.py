"""Makes the engine's request for one attempt: the whole output, what follows its history or prompt, or a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from executor_svc.runtime.engine_port import EngineFacts, EngineRequest, FinishReason, InvalidRequestError, Sampling
from executor_svc.runtime.messages.commands import Assign, ContinuationMode, Phase

PREFILL = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)  # its only token is dropped; embeddings have none


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """One run of the engine."""

    request: EngineRequest
    replayed: Sequence[int] = ()  # tokens it must repeat before new ones count


@dataclass(frozen=True, kw_only=True, slots=True)
class Complete:
    """The end of a request whose whole output earlier attempts delivered; only the message about its end was lost."""

    finish_reason: FinishReason
    stop_string: str = ""
    stop_token_id: int | None = None


def engine_request_id(assign: Assign, suffix: str = "") -> str:
    """Return the engine's id for an attempt, unique for the engine's life."""
    return f"{assign.request_id}/{assign.attempt}{suffix}"


def first_leg(assign: Assign, facts: EngineFacts) -> Leg:
    """Return the leg that ``assign`` asks for: a prefill, a whole run, a run after a history, a resumption or a replay.

    An engine that keeps no output history replays instead.  Raises InvalidRequestError.
    """
    if assign.embedding is not None:
        return Leg(request=_embedding_request(assign))
    continuation = assign.continuation
    if assign.phase is Phase.PREFILLING:
        return Leg(request=replace(_request(assign, facts, (), PREFILL, ""), prefill_only=True))
    if continuation is not None and assign.kv_transfer_params is not None:
        raise InvalidRequestError(
            "kv_transfer_params", "a request that goes on from delivered tokens has no prefill leg"
        )
    if continuation is None:
        return Leg(request=_request(assign, facts, (), assign.sampling, ""))
    emitted = continuation.emitted_token_ids
    if continuation.mode is ContinuationMode.RESUME:
        return Leg(request=_request(assign, facts, emitted, _rest(assign), ""))
    if continuation.mode is ContinuationMode.HISTORY and facts.keeps_output_history:
        sampling = replace(assign.sampling, prompt_logprobs=None)  # delivered with the first tokens
        return Leg(request=replace(_request(assign, facts, (), sampling, ""), output_history=emitted))
    return Leg(request=_request(assign, facts, (), assign.sampling, ""), replayed=emitted)


def _embedding_request(assign: Assign) -> EngineRequest:
    return EngineRequest(
        engine_request_id=engine_request_id(assign),
        prompt_token_ids=assign.prompt_token_ids,
        sampling=PREFILL,
        priority=assign.engine_priority,
        trace_headers=assign.trace_headers or None,
        adapter=assign.adapter,
        embedding=assign.embedding,
    )


def resumed_leg(assign: Assign, facts: EngineFacts) -> Leg:
    """Return the leg that goes on from the delivered tokens after a replay diverged.

    Only for callers that allow best effort.  The rest is generated without a structured-output constraint: its grammar
    would start again from the beginning, in the middle of the text.
    """
    emitted = assign.continuation.emitted_token_ids if assign.continuation else ()
    sampling = replace(_rest(assign), structured_output=None)
    return Leg(request=_request(assign, facts, emitted, sampling, "-resumed"))


def _rest(assign: Assign) -> Sampling:
    emitted = len(assign.continuation.emitted_token_ids) if assign.continuation else 0
    sampling = assign.sampling
    return replace(
        sampling,
        max_tokens=sampling.max_tokens - emitted,
        min_tokens=max(0, sampling.min_tokens - emitted),
        prompt_logprobs=None,
    )


def _request(
    assign: Assign, facts: EngineFacts, emitted: Sequence[int], sampling: Sampling, suffix: str
) -> EngineRequest:
    prompt = [*assign.prompt_token_ids, *emitted] if emitted else assign.prompt_token_ids
    length = len(prompt) + assign.media_tokens
    left = facts.max_model_len - length
    if left <= 0:
        raise InvalidRequestError(
            "prompt",
            f"the prompt has {length} tokens; the model's limit is {facts.max_model_len}, output included",
        )
    if sampling.max_tokens > left:
        sampling = replace(sampling, max_tokens=left, min_tokens=min(sampling.min_tokens, left))
    return EngineRequest(
        engine_request_id=engine_request_id(assign, suffix),
        prompt_token_ids=prompt,
        sampling=sampling,
        priority=assign.engine_priority,
        trace_headers=assign.trace_headers or None,
        adapter=assign.adapter,
        kv_transfer_params=assign.kv_transfer_params,
        media=assign.media,
        media_tokens=assign.media_tokens,
    )


def already_complete(assign: Assign, facts: EngineFacts, end_ids: frozenset[int]) -> Complete | None:
    """Return how the request ends if the delivered tokens are its whole output, else None.  Ignores stop strings."""
    if assign.continuation is None or not assign.continuation.emitted_token_ids:
        return None
    emitted, sampling = assign.continuation.emitted_token_ids, assign.sampling
    last = emitted[-1]
    if len(emitted) >= sampling.min_tokens:
        if last in sampling.stop_token_ids:
            return Complete(finish_reason=FinishReason.STOP, stop_token_id=last)
        if last in end_ids and not sampling.ignore_eos:
            return Complete(finish_reason=FinishReason.STOP, stop_token_id=last)
    length = assign.prompt_tokens + len(emitted)
    if len(emitted) >= sampling.max_tokens or length >= facts.max_model_len:
        return Complete(finish_reason=FinishReason.LENGTH)
    return None
