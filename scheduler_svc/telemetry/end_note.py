"""The part of an ended request that its spans show: figures and labels.

A live request holds its whole output, and an error holds the frames it passed through.  A note is kept instead, so that
spans which wait for a receiver do not keep either in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sage_telemetry.otlp_attributes import Attributes
from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.domain.request import RequestState
from scheduler_svc.telemetry.outcomes import in_words, invalid_fields, reason_of
from scheduler_svc.telemetry.request_content import CONTENT_LIMIT

REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class EndNote:
    """How a request ended, for its spans."""

    outcome: str  # the request's last state, or REFUSED
    error_type: str | None  # the label ``reason``; None if it finished
    failure: str | None  # in words; None if it finished or was cancelled
    invalid_fields: Sequence[str] = ()
    finish_reason: str | None = None  # stop, length; None if it did not finish
    model: str = ""  # as the registry knows it; empty if the request was refused
    first_token_at: float | None = None  # seconds on the control clock
    answered: Attributes = field(default_factory=dict)  # sampling in force, usage, times, as span attributes
    output: str | None = None  # with telemetry.content: its first CONTENT_LIMIT characters

    @property
    def refused(self) -> bool:
        """Whether the request was refused, so that it was never accepted."""
        return self.outcome == REFUSED


def of_refused(error: BaseException) -> EndNote:
    """Make the note of a request that was refused with ``error``."""
    return EndNote(
        outcome=REFUSED, error_type=reason_of(error), failure=in_words(error), invalid_fields=invalid_fields(error)
    )


def of_ended(live: ObservedRequest, *, content: bool) -> EndNote:
    """Make the note of a request that has ended.  ``content``: whether its output is noted."""
    outcome = live.outcome
    assert outcome is not None, "an ended request has an outcome"
    fine = isinstance(outcome, Finished)
    return EndNote(
        outcome=live.state.value,
        error_type=None if fine else reason_of(outcome),
        failure=None if isinstance(outcome, Finished) or live.state is RequestState.CANCELLED else in_words(outcome),
        invalid_fields=invalid_fields(outcome),
        finish_reason=outcome.finish_reason if isinstance(outcome, Finished) else None,
        model=live.request.model,
        first_token_at=live.first_token_at,
        answered=_answered(live),
        output=live.output.text[:CONTENT_LIMIT] if content else None,
    )


def _answered(live: ObservedRequest) -> Attributes:
    request, sampling, outcome = live.request, live.request.sampling, live.outcome
    finished = outcome if isinstance(outcome, Finished) else None
    first = live.first_token_at
    return {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty or None,
        "gen_ai.request.presence_penalty": sampling.presence_penalty or None,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.response.model": request.model if finished is not None else None,
        "gen_ai.response.finish_reasons": [finished.finish_reason] if finished is not None else None,
        "gen_ai.usage.input_tokens": request.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": finished.cached_prompt_tokens if finished is not None else None,
        "gen_ai.usage.output_tokens": len(live.output),
        "sage.adapter": request.adapter or None,
        "sage.attempts": live.attempts,
        "sage.cost": live.cost,
        "sage.time.queue": None if live.first_assigned_at is None else live.first_assigned_at - request.arrived_at,
        "sage.time.to_first_token": None if first is None else first - request.arrived_at,
        "sage.time.per_output_token": _per_token(live),
    }


def _per_token(live: ObservedRequest) -> float | None:
    first, last = live.first_token_at, live.last_token_at
    if first is None or last is None or len(live.output) < 2:
        return None
    return (last - first) / (len(live.output) - 1)
