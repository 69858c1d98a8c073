"""Makes vLLM's requests from earlier ones, so that vLLM checks the same sampling options once.

``AsyncLLM.add_request`` checks every option of every request and derives others from the model, a third of what a
request costs this process.  For most requests the result is known: a request with the same options was added before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields
from itertools import count
from operator import attrgetter
from typing import Any

from executor_svc.engine.vllm.sampling import seed_for
from executor_svc.runtime.engine_port import EngineRequest, Sampling

MOST_KEPT = 256  # combinations of options
PER_REQUEST = ("seed", "max_tokens")
"""Options that each request may have of its own: vLLM derives nothing from their values."""

CHECKED_EACH_TIME = (
    *("logit_bias", "bad_words", "allowed_token_ids", "structured_output", "logprobs", "prompt_logprobs"),
    *("cache_salt", "engine_options"),
)
"""Options that vLLM looks at anew in each request that has them."""

_checked = attrgetter(*CHECKED_EACH_TIME)
_NONE_CHECKED = _checked(Sampling())
_key_of = attrgetter(*(each.name for each in fields(Sampling) if each.name not in {*PER_REQUEST, *CHECKED_EACH_TIME}))


@dataclass(frozen=True, slots=True)
class _Known:
    """What vLLM made of a request."""

    request: Any  # EngineCoreRequest
    params: Any  # its SamplingParams


class MadeRequests:
    """Keeps what vLLM made of requests, by their options; at most MOST_KEPT, the oldest goes first."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], _Known] = {}
        self._serial = count(1)

    def learn(self, request: EngineRequest, made: Any) -> None:
        """Keep ``made``, the EngineCoreRequest that vLLM made of ``request``, if others can be made from it."""
        key = _key(request)
        if key is None or key in self._known:
            return
        while len(self._known) >= MOST_KEPT:
            del self._known[next(iter(self._known))]
        kept = copy(made)
        kept.prompt_token_ids = []  # prompts are not kept
        self._known[key] = _Known(kept, made.sampling_params)

    def make(self, request: EngineRequest, *, lora_request: Any, trace_headers: Any) -> Any | None:
        """Return the EngineCoreRequest for ``request``; None if none like it is known."""
        key = _key(request)
        known = None if key is None else self._known.get(key)
        if known is None:
            return None
        made = copy(known.request)
        made.request_id = f"{request.engine_request_id}-{next(self._serial):08x}"
        made.external_req_id = request.engine_request_id
        made.prompt_token_ids = _listed(request.prompt_token_ids)
        made.sampling_params = _params(known.params, request.sampling)
        made.arrival_time = time.time()
        made.lora_request = lora_request
        made.trace_headers = trace_headers
        made.priority = request.priority
        return made


def _key(request: EngineRequest) -> tuple[Any, ...] | None:
    sampling = request.sampling
    if request.output_history or _checked(sampling) != _NONE_CHECKED or not _lengths_agree(sampling):
        return None
    return request.adapter, sampling.seed is None, *_key_of(sampling)


def _lengths_agree(sampling: Sampling) -> bool:
    """Whether vLLM has no objection to the lengths; else it is asked, and says which."""
    return sampling.max_tokens >= 1 and sampling.min_tokens <= sampling.max_tokens


def _params(known: Any, sampling: Sampling) -> Any:
    seed = seed_for(sampling)
    if known.max_tokens == sampling.max_tokens and known.seed == seed:
        return known
    params = copy(known)
    params.max_tokens, params.seed = sampling.max_tokens, seed
    return params


def _listed(token_ids: Sequence[int]) -> list[int]:
    return token_ids if isinstance(token_ids, list) else list(token_ids)
