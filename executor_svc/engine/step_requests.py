"""Decides which requests' outputs come by steps, in the same way for both engines."""

from __future__ import annotations

from executor_svc.runtime.engine_port import EngineRequest

STEPS = "steps"
"""Counted for a request whose outputs come by steps."""

UNSUPPORTED = "unsupported"
"""Counted for a request of an engine that cannot give outputs by steps, as a check at its start found."""

OFF = "off"
"""Counted for a request of an engine whose settings say that no outputs come by steps."""


def why_not_by_steps(request: EngineRequest) -> str | None:
    """Return why only ``Engine.generate`` runs a request, as a metric label; None if ``Engine.submit`` does.

    Log probabilities and KV transfer parameters are in objects that vLLM makes for one request at a time.  An embedding
    is one output and no tokens.  Images and audio are decoded and processed before vLLM can take the request.
    """
    if request.embedding is not None:
        return "embedding"
    if request.media:
        return "media"
    if request.prefill_only or request.kv_transfer_params is not None:
        return "kv_transfer"
    if request.sampling.logprobs is not None or request.sampling.prompt_logprobs is not None:
        return "logprobs"
    return None
