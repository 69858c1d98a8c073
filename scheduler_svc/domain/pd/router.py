"""Decides which phase dominates a request, and whether to split it: by token counts, never by characters."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The figures of a request that the choice depends on, all in tokens."""

    prompt_tokens: int
    output_tokens: int  # predicted
    max_tokens: int
    prompt_logprobs: bool = False
    media: bool = False  # the prompt has images or audio
    continued: bool = False  # tokens were delivered already by an earlier attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Predicted seconds, for ADAPTIVE.  Prefill times are of the uncached part of the prompt."""

    whole_first_token_s: float  # on the best instance for the whole request
    split_first_token_s: float  # prefill elsewhere and the handoff
    interference_s: float  # delay the prompt would cause to what decodes there now, over all its streams
    handoff_s: float
    prefill_backlog_s: float  # of work waiting at the prefill instance


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseChoice:
    """The phase that dominates a request, and whether it is split between two instances."""

    phase: Phase
    split: bool
    reason: str
    prefill_short: bool = False  # it is not split because too much work waits for prefill


def determine_request_phase(shape: Shape, settings: PdSettings, forecast: Forecast | None = None) -> PhaseChoice:
    """Decide which phase dominates a request and whether to split it.

    PREFILLING: the prompt dominates.  DECODING: the output dominates.  HYBRID: neither does.  Only ADAPTIVE uses
    ``forecast``; without one it does not split.
    """
    phase = _dominant(shape, settings)
    obstacle = _obstacle(shape)
    if settings.mode is SplitMode.NEVER:
        return PhaseChoice(phase=phase, split=False, reason="splitting is off")
    if obstacle:
        return PhaseChoice(phase=phase, split=False, reason=f"never split: {obstacle}")
    if settings.mode is SplitMode.ALWAYS:
        return PhaseChoice(phase=phase, split=True, reason="every request is split")
    if settings.mode is SplitMode.THRESHOLD:
        return _by_threshold(shape, settings, phase)
    return _by_forecast(shape, forecast, phase)


def _dominant(shape: Shape, settings: PdSettings) -> Phase:
    if shape.prompt_tokens >= settings.threshold_input_tokens:
        return Phase.PREFILLING
    ratio = shape.prompt_tokens / max(1, shape.output_tokens)
    if ratio >= settings.threshold_ratio:
        return Phase.PREFILLING
    return Phase.DECODING if ratio <= 1 / settings.threshold_ratio else Phase.HYBRID


def _obstacle(shape: Shape) -> str:
    """Say why a handoff cannot carry the request; empty if it can."""
    if shape.max_tokens <= 1:
        return "one output token, which prefill gives by itself"
    if shape.prompt_logprobs:
        return "log probabilities of the prompt stay where it is computed"
    if shape.media:
        return "its images and audio are processed where the output is generated"
    if shape.continued:
        return "it goes on from tokens that were delivered already"
    return ""


def _by_threshold(shape: Shape, settings: PdSettings, phase: Phase) -> PhaseChoice:
    prompt, limit = shape.prompt_tokens, settings.threshold_input_tokens
    if prompt >= limit:
        return PhaseChoice(phase=phase, split=True, reason=f"{prompt} prompt tokens, threshold {limit}")
    ratio = prompt / max(1, shape.output_tokens)
    if ratio >= settings.threshold_ratio and prompt >= settings.min_split_tokens:
        reason = f"prompt {ratio:.1f} times the predicted output, threshold {settings.threshold_ratio:g}"
        return PhaseChoice(phase=phase, split=True, reason=reason)
    reason = f"{prompt} prompt tokens, {ratio:.1f} times the predicted output: below both thresholds"
    return PhaseChoice(phase=phase, split=False, reason=reason)


def _by_forecast(shape: Shape, forecast: Forecast | None, phase: Phase) -> PhaseChoice:
    """Split where running streams gain more time than this request loses.

    Do not split where prefill is the bottleneck: a request that would wait longer for prefill than for a whole run
    gains nothing, and neither do the requests behind it.
    """
    if forecast is None:
        return PhaseChoice(phase=phase, split=False, reason="nothing is known about splitting yet")
    if forecast.prefill_backlog_s > forecast.whole_first_token_s:
        reason = f"prefill is the bottleneck: {forecast.prefill_backlog_s:.2f} s of work wait there"
        return PhaseChoice(phase=phase, split=False, reason=reason, prefill_short=True)
    later_s = max(0.0, forecast.split_first_token_s - forecast.whole_first_token_s)
    gain_s = forecast.interference_s - later_s
    reason = f"{forecast.interference_s:.3f} s less delay for running streams, first token {later_s:.3f} s later"
    return PhaseChoice(phase=phase, split=gain_s > 0, reason=reason)
