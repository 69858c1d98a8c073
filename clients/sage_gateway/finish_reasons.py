"""Why a generation ended, in vLLM's words."""

from __future__ import annotations

from sage_client import Finished, FinishReason

_REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length"}


def finish_reason(finished: Finished) -> str:
    """Return vLLM's finish reason."""
    return _REASONS.get(finished.finish_reason, "stop")


def stop_reason(finished: Finished, eos: int | None) -> str | int | None:
    """Return the stop string or the stop token that ended a text; None for any other end.

    ``eos``: the token that ends a text by itself, which is no reason to name; None: it is ignored.
    """
    stopped_by = finished.stop_token_id
    return finished.stop_string or (None if stopped_by == eos else stopped_by)
