"""An executor's last word on an attempt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class EndCause(Enum):
    """Why an attempt ended, as its executor says."""

    FINISHED = "finished"
    CANCELLED = "cancelled"  # we said so
    INVALID = "invalid"  # the caller's fault, noticed by the engine
    FAILED = "failed"  # the engine's fault
    DEADLINE = "deadline"
    REPLAY_DIVERGED = "replay_diverged"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnd:
    """How an attempt ended: its slot in the engine is free, and its KV tokens but for the blocks of a prefill leg."""

    attempt_number: int
    cause: EndCause
    finish_reason: str = ""  # "stop" | "length"
    stop_string: str = ""
    stop_token_id: int | None = None
    total_tokens: int = 0  # output tokens over all attempts
    trailing_text: str = ""
    cached_prompt_tokens: int = 0
    field: str = ""
    message: str = ""
    engine_time_s: float = 0.0
    kv_transfer_params: bytes = b""  # prefill legs: JSON of the engines' connector
    kv_lease_s: float = 0.0  # how long the blocks wait
    kv_unclaimed: bool = False  # decode legs: their engine never took the handoff on
    kv_recomputed: bool = False  # decode legs: the prompt's KV could not be fetched and was computed there
