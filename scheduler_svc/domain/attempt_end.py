"""How an attempt ended, as its executor reports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class EndCause(Enum):
    """Why an attempt ended, as its executor reports it."""

    FINISHED = "finished"
    CANCELLED = "cancelled"  # by the scheduler, or by an executor that shuts down
    INVALID = "invalid"  # the caller's fault, noticed by the engine
    FAILED = "failed"  # the engine's fault
    DEADLINE = "deadline"
    REPLAY_DIVERGED = "replay_diverged"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnd:
    """How an attempt ended.  Its slot and KV tokens are free, except for the KV blocks that a prefill leg leaves."""

    attempt_number: int
    cause: EndCause
    finish_reason: str = ""  # "stop" | "length"
    stop_string: str = ""
    stop_token_id: int | None = None
    total_tokens: int = 0  # output tokens over all attempts
    trailing_text: str = ""
    cached_prompt_tokens: int = 0
    field: str = ""  # INVALID: the field at fault
    message: str = ""
    engine_time_s: float = 0.0
    kv_transfer_params: bytes = b""  # prefill legs: JSON of the engines' connector
    kv_lease_s: float = 0.0  # prefill legs: how long the engine keeps the blocks
    kv_unclaimed: bool = False  # decode legs: the engine never started to fetch
    kv_recomputed: bool = False  # decode legs: the prompt's KV could not be fetched and was computed there
    engine_died: bool = False  # FAILED: the engine died while it ran the attempt
    embedding: bytes = b""  # FINISHED, of a request that is embedded: little-endian 32-bit floats
