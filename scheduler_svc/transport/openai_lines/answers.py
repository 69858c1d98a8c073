"""Response bodies as OpenAI's API has them, of requests that finished."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from typing import Any

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.request_group import vector_of


def chat(request_id: str, requests: Sequence[LiveRequest], now: float) -> dict[str, Any]:
    """Return the response of /v1/chat/completions.  ``now``: seconds since 1970."""
    choices = [
        {"index": place, "message": {"role": "assistant", "content": live.output.text}, **_end(live)}
        for place, live in enumerate(requests)
    ]
    usage = _usage(requests, prompts=requests[:1])
    return {**_head(f"chatcmpl-{request_id}", "chat.completion", requests, now), "choices": choices, "usage": usage}


def completion(request_id: str, requests: Sequence[LiveRequest], now: float, prompts: int) -> dict[str, Any]:
    """Return the response of /v1/completions.  ``prompts``: how many there were, each with as many choices."""
    choices = [{"index": place, "text": live.output.text, **_end(live)} for place, live in enumerate(requests)]
    usage = _usage(requests, prompts=requests[:: len(requests) // prompts])
    return {**_head(f"cmpl-{request_id}", "text_completion", requests, now), "choices": choices, "usage": usage}


def embeddings(request_id: str, requests: Sequence[LiveRequest], now: float, *, as_base64: bool) -> dict[str, Any]:
    """Return the response of /v1/embeddings."""
    data = [
        {"object": "embedding", "index": place, "embedding": _vector(vector_of(live), as_base64=as_base64)}
        for place, live in enumerate(requests)
    ]
    used = sum(_finished(live).prompt_tokens for live in requests)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {**_head(f"embd-{request_id}", "list", requests, now), "data": data, "usage": usage}


def _head(answer_id: str, kind: str, requests: Sequence[LiveRequest], now: float) -> dict[str, Any]:
    return {"id": answer_id, "object": kind, "created": int(now), "model": requests[0].request.model}


def _end(live: LiveRequest) -> dict[str, Any]:
    outcome = _finished(live)
    stop = outcome.stop_string or outcome.stop_token_id
    return {"logprobs": None, "finish_reason": outcome.finish_reason, "stop_reason": stop}


def _usage(requests: Sequence[LiveRequest], prompts: Sequence[LiveRequest]) -> dict[str, Any]:
    """Return the tokens used; each of ``prompts`` counts once, whatever number of choices it has."""
    given = sum(_finished(live).prompt_tokens for live in prompts)
    made = sum(_finished(live).completion_tokens for live in requests)
    cached = sum(_finished(live).cached_prompt_tokens for live in prompts)
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _vector(found: bytes, *, as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(found).decode()
    return array("f", found).tolist()


def _finished(live: LiveRequest) -> Finished:
    assert isinstance(live.outcome, Finished), "a line has a response once its requests finished"
    return live.outcome
