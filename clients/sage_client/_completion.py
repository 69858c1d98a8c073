"""Collects a request's outcome from its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sage_client._enums import FinishReason
from sage_client._errors import OutputInvalidError, ProtocolError
from sage_client._events import (
    Accepted,
    Decision,
    Event,
    Finished,
    Scheduled,
    SloResult,
    Timings,
    TokenLogprob,
    Tokens,
    Usage,
)
from sage_client._partial_output import PartialOutput
from sage_client._plain import Plain
from sage_client._response_format import ResponseFormat, parse


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion(Plain):
    """The outcome of a finished request (choice 0)."""

    request_id: str
    model: str
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token if requested
    finish_reason: FinishReason
    stop_string: str | None
    stop_token_id: int | None
    usage: Usage
    timings: Timings
    attempts: int  # number of placements
    cost: float  # in the currency of the instances' prices
    slo: tuple[SloResult, ...]
    decisions: tuple[Decision, ...]  # placements that this stream received, oldest first
    warnings: tuple[str, ...]  # options that were accepted and had no effect
    parsed: Any = None  # instance of ``response_format``; None without one

    @property
    def instance_id(self) -> str:
        """Instance of the last placement; empty if the stream attached after it."""
        return self.decisions[-1].instance_id if self.decisions else ""


@dataclass(slots=True)
class CompletionBuilder:
    """Collects a stream's events, in order, into a Completion."""

    response_format: type[ResponseFormat] | None = None
    accepted: Accepted | None = None
    finished: Finished | None = None
    decisions: list[Decision] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[tuple[TokenLogprob, ...]] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Add the next event."""
        match event:
            case Tokens():
                if event.choice == 0:
                    self.texts.append(event.text)
                    self.token_ids += event.token_ids
                    self.logprobs += event.logprobs
            case Scheduled():
                self.decisions.append(event.decision)
            case Accepted():
                self.accepted = self.accepted or event
            case Finished():
                self.finished = event

    def partial(self) -> PartialOutput | None:
        """Return what was delivered so far; None if that is nothing."""
        if not (self.token_ids or self.texts):
            return None
        return PartialOutput(
            text="".join(self.texts),
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            decisions=tuple(self.decisions),
        )

    def build(self) -> Completion:
        """Return the outcome.

        Raises:
            ProtocolError: the stream ended without Accepted or Finished.
            OutputInvalidError: the output does not fit ``response_format``.
        """
        if self.accepted is None or self.finished is None:
            raise ProtocolError("the stream ended before the scheduler reported the end of the request")
        text = "".join(self.texts)
        return Completion(
            request_id=self.accepted.request_id,
            model=self.accepted.model,
            text=text,
            parsed=self._parsed(text, self.finished.finish_reason),
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            finish_reason=self.finished.finish_reason,
            stop_string=self.finished.stop_string,
            stop_token_id=self.finished.stop_token_id,
            usage=self.finished.usage,
            timings=self.finished.timings,
            attempts=self.finished.attempts,
            cost=self.finished.cost,
            slo=self.finished.slo,
            decisions=tuple(self.decisions),
            warnings=self.accepted.warnings,
        )

    def _parsed(self, text: str, finish_reason: FinishReason) -> Any:
        if self.response_format is None:
            return None
        try:
            return parse(self.response_format, text, finish_reason)
        except OutputInvalidError as error:
            error.request_id = self.accepted.request_id if self.accepted else ""
            error.partial = self.partial()
            raise
