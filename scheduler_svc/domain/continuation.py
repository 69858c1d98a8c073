"""How a request's next attempt goes on after the tokens that earlier attempts delivered."""

from __future__ import annotations

from enum import Enum

from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.request import Sampling


class ContinuationMode(Enum):
    """How an attempt goes on after delivered tokens."""

    HISTORY = "history"  # the engine is given them as its own output
    RESUME = "resume"  # the engine is given prompt and output as its prompt
    REPLAY = "replay"  # the engine generates them again, and each is compared with what was delivered


def continuation_mode(sampling: Sampling, facts: EngineFacts | None) -> ContinuationMode:
    """Return how a request goes on at an engine with these facts; the first way that is exact."""
    if facts is not None and facts.keeps_output_history:
        return ContinuationMode.HISTORY
    return ContinuationMode.RESUME if sampling.resumable else ContinuationMode.REPLAY


def in_words(mode: ContinuationMode, tokens: int, instance_id: str) -> str:
    """Return the sentence of a request's history about how it goes on after ``tokens`` delivered tokens."""
    match mode:
        case ContinuationMode.HISTORY:
            return f"after {tokens} tokens, which {instance_id} takes as its output so far"
        case ContinuationMode.RESUME:
            return f"after {tokens} tokens, which {instance_id} computes as a part of the prompt"
        case ContinuationMode.REPLAY:
            return f"by replay: {instance_id} keeps no output history and generates {tokens} tokens again"
