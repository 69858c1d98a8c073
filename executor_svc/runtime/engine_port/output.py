"""What an engine puts out for a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from executor_svc.runtime.engine_port.errors import EngineError, InvalidRequestError
from executor_svc.runtime.engine_port.request import JsonValue


class FinishReason(Enum):
    """Why an engine ended a request."""

    STOP = "stop"  # an end-of-sequence or stop token id (runtime adds stop strings)
    LENGTH = "length"  # max_tokens or the model's length reached
    ABORTED = "aborted"  # the engine ended it without our asking


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprob:
    """One candidate for a position, and its log probability."""

    token_id: int
    logprob: float
    rank: int | None  # 1 = most likely


@dataclass(slots=True, kw_only=True)
class EngineOutput:
    """The output of one engine step for one request.

    ``token_ids`` are new since the last output; they may be empty at the end.
    """

    token_ids: Sequence[int]
    logprobs: list[list[TokenLogprob]] | None = None  # one list per new token, chosen token first
    prompt_logprobs: list[list[TokenLogprob] | None] | None = None  # one per prompt token (first None); first output
    finish_reason: FinishReason | None = None  # set on the last output
    stop_token_id: int | None = None  # the stop/eos token that ended it, when one did
    cached_prompt_tokens: int | None = None  # prompt tokens served from the prefix cache; set once known
    kv_transfer_params: Mapping[str, JsonValue] | None = None  # on the last output of a prefill_only request
    kv_kept_s: float = 0.0  # with kv_transfer_params: seconds of the KV lease that passed before this output was read
    kv_pull_failed: bool = False  # first output: the prompt's KV could not be fetched and was computed here
    embedding: bytes | None = None  # the only output of a request with ``embedding``: little-endian 32-bit floats


StepOutput = list[int] | EngineOutput | EngineError | InvalidRequestError
"""What a submitted request put out in one step.

Usually its new token ids and nothing else.  An EngineOutput says more: the first and the last output.  An error ends
the request.
"""


class StepReader(Protocol):
    """Takes the outputs of one submitted request."""

    def take(self, output: StepOutput) -> None:
        """Take what one step put out.  Raises nothing.  Nothing follows a ``finish_reason`` or an error."""
        ...


Step = Sequence[tuple[StepReader, StepOutput]]
"""The outputs of one step, for all submitted requests or for some of them; each request at most once."""
