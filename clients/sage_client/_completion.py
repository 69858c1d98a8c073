"""Collects a request's outcome from its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sage_client._enums import FinishReason
from sage_client._errors import OutputInvalidError, ProtocolError
from sage_client._events import (
    Accepted,
    ChoiceFinished,
    Decision,
    Event,
    Finished,
    PromptRead,
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
class Choice(Plain):
    """One output of a finished request."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token if requested
    finish_reason: FinishReason
    stop_string: str | None
    stop_token_id: int | None
    parsed: Any = None  # instance of ``response_format``; None without one


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion(Plain):
    """The outcome of a finished request: of choice 0, with ``choices``, and the figures of all."""

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
    choices: tuple[Choice, ...] = ()  # all outputs, by index; of most requests there is one
    prompt_logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()  # one per prompt token if requested; the first is empty

    @property
    def instance_id(self) -> str:
        """Instance of the last placement; empty if the stream attached after it."""
        return self.decisions[-1].instance_id if self.decisions else ""


@dataclass(slots=True)
class _Output:
    """What came of one choice."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[tuple[TokenLogprob, ...]] = field(default_factory=list)
    finished: Finished | None = None  # of one choice of several


@dataclass(slots=True)
class CompletionBuilder:
    """Collects a stream's events, in order, into a Completion."""

    response_format: type[ResponseFormat] | None = None
    accepted: Accepted | None = None
    finished: Finished | None = None
    decisions: list[Decision] = field(default_factory=list)
    prompt_logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()
    outputs: dict[int, _Output] = field(default_factory=lambda: {0: _Output()})  # by choice

    def take(self, event: Event) -> None:
        """Add the next event."""
        match event:
            case Tokens():
                output = self.outputs.get(event.choice) or self._output(event.choice)
                output.texts.append(event.text)
                output.token_ids += event.token_ids
                output.logprobs += event.logprobs
            case Scheduled():
                self.decisions.append(event.decision)
            case PromptRead():
                self.prompt_logprobs = self.prompt_logprobs or event.logprobs
            case Accepted():
                self.accepted = self.accepted or event
            case ChoiceFinished():
                self._output(event.choice).finished = event.finished
            case Finished():
                self.finished = event

    def _output(self, choice: int) -> _Output:
        return self.outputs.setdefault(choice, _Output())

    def partial(self) -> PartialOutput | None:
        """Return what was delivered of choice 0 so far; None if that is nothing."""
        output = self.outputs[0]
        if not (output.token_ids or output.texts):
            return None
        return PartialOutput(
            text="".join(output.texts),
            token_ids=tuple(output.token_ids),
            logprobs=tuple(output.logprobs),
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
        choices = tuple(self._choice(index, self.finished) for index in sorted(self.outputs))
        first = choices[0]
        return Completion(
            request_id=self.accepted.request_id,
            model=self.accepted.model,
            text=first.text,
            parsed=first.parsed,
            token_ids=first.token_ids,
            logprobs=first.logprobs,
            choices=choices,
            prompt_logprobs=self.prompt_logprobs,
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

    def _choice(self, index: int, finished: Finished) -> Choice:
        output = self.outputs[index]
        own, text = output.finished or finished, "".join(output.texts)
        return Choice(
            index=index,
            text=text,
            token_ids=tuple(output.token_ids),
            logprobs=tuple(output.logprobs),
            finish_reason=own.finish_reason,
            stop_string=own.stop_string,
            stop_token_id=own.stop_token_id,
            parsed=self._parsed(text, own.finish_reason),
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
