"""The events of a plain stream, as the JSON that vLLM's response objects are written in.

The order of the fields and which of them are null is vLLM's; tests/vllm/gateway/test_plain_streams.py holds both
beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from json.encoder import encode_basestring as json_text  # escapes what JSON must escape and nothing else, as vLLM does
from typing import Protocol

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamFacts:
    """What is the same in all events of a stream."""

    answer_id: str
    created: int  # seconds since 1970
    model: str
    prompt_tokens: int
    fingerprint: str | None  # of the server; on the last event that has a choice or usage
    usage: bool  # the last event says how many tokens there were
    continuous_usage: bool  # and so does every other one
    cached_tokens: bool  # usage says how many prompt tokens were cached, where that is known in time
    completion_details: bool  # a chat's continuous usage has a field for what its output tokens were


class Chunks(Protocol):
    """Writes the events of one kind of stream."""

    def head(self) -> str:
        """Return what a stream begins with."""
        ...

    def piece(self, text: str, tokens: int) -> str:
        """Return the event with new text.  ``tokens``: of the output so far."""
        ...

    def end(self, text: str, tokens: int, finish_reason: str, stop_reason: str | int | None) -> str:
        """Return the event with the last text."""
        ...

    def usage(self, tokens: int, cached: int | None) -> str:
        """Return the event with the usage.  ``cached``: prompt tokens that were cached; None: not known."""
        ...


class ChatChunks:
    """Chunks of a chat completion."""

    def __init__(self, facts: StreamFacts, role: str) -> None:
        """``role``: of the message that is written."""
        self._facts = facts
        self._role = role
        self._frame = _Frame(facts, "chat.completion.chunk")
        self._before = f'{self._frame.before}[{{"index":0,"delta":{{"content":'
        self._after = '},"logprobs":null,"finish_reason":null,"token_ids":null}]'
        self._closed = f"{self._after}}}\n\n"

    def head(self) -> str:
        """Return the chunk with the role."""
        delta = f'{{"role":{json_text(self._role)},"content":""}}'
        choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}'
        return f'{self._frame.before}[{choice}]{self._usage_so_far(0)},"prompt_token_ids":null,"prompt_text":null}}\n\n'

    def piece(self, text: str, tokens: int) -> str:
        """Return the chunk with new text."""
        if not self._facts.continuous_usage:
            return self._before + json_text(text) + self._closed
        return f"{self._before}{json_text(text)}{self._after}{self._usage_so_far(tokens)}}}\n\n"

    def end(self, text: str, tokens: int, finish_reason: str, stop_reason: str | int | None) -> str:
        """Return the chunk with the last text."""
        why = f'"finish_reason":{json_text(finish_reason)},"stop_reason":{_scalar(stop_reason)}'
        choice = f'{json_text(text)}}},"logprobs":null,{why},"token_ids":null}}]'
        return f"{self._before}{choice}{self._usage_so_far(tokens)}{self._frame.last_fingerprint}}}\n\n"

    def usage(self, tokens: int, cached: int | None) -> str:
        """Return the chunk without a choice."""
        return self._frame.usage(tokens, cached)

    def _usage_so_far(self, tokens: int) -> str:
        if not self._facts.continuous_usage:
            return ""
        details = ',"completion_tokens_details":null' if self._facts.completion_details else ""
        return f',"usage":{{{self._frame.counts(tokens)}{details}}}'


class CompletionChunks:
    """Chunks of a text completion."""

    def __init__(self, facts: StreamFacts) -> None:
        self._facts = facts
        self._frame = _Frame(facts, "text_completion")
        self._before = f'{self._frame.before}[{{"index":0,"text":'
        self._rest = ',"prompt_token_ids":null,"token_ids":null}]'
        self._after = f',"logprobs":null,"finish_reason":null,"stop_reason":null{self._rest}'
        self._closed = f"{self._after}}}\n\n"

    def head(self) -> str:
        """Return nothing: the first text is the first chunk."""
        return ""

    def piece(self, text: str, tokens: int) -> str:
        """Return the chunk with new text."""
        if not self._facts.continuous_usage:
            return self._before + json_text(text) + self._closed
        return f"{self._before}{json_text(text)}{self._after}{self._usage_so_far(tokens)}}}\n\n"

    def end(self, text: str, tokens: int, finish_reason: str, stop_reason: str | int | None) -> str:
        """Return the chunk with the last text."""
        why = f'"logprobs":null,"finish_reason":{json_text(finish_reason)},"stop_reason":{_scalar(stop_reason)}'
        choice = f"{json_text(text)},{why}{self._rest}"
        return f"{self._before}{choice}{self._usage_so_far(tokens)}{self._frame.last_fingerprint}}}\n\n"

    def usage(self, tokens: int, cached: int | None) -> str:
        """Return the chunk without a choice."""
        return self._frame.usage(tokens, cached)

    def _usage_so_far(self, tokens: int) -> str:
        return f',"usage":{{{self._frame.counts(tokens)}}}' if self._facts.continuous_usage else ""


class _Frame:
    """What the chunks of both kinds have around their choice."""

    def __init__(self, facts: StreamFacts, kind: str) -> None:
        self._facts = facts
        self._fingerprint = "" if facts.fingerprint is None else f',"system_fingerprint":{json_text(facts.fingerprint)}'
        self.before = (
            f'data: {{"id":{json_text(facts.answer_id)},"object":"{kind}","created":{facts.created},'
            f'"model":{json_text(facts.model)},"choices":'
        )
        self.last_fingerprint = "" if facts.usage else self._fingerprint  # the usage comes later, and has it

    def counts(self, tokens: int) -> str:
        """Return the fields of a usage."""
        prompt = self._facts.prompt_tokens
        return f'"prompt_tokens":{prompt},"total_tokens":{prompt + tokens},"completion_tokens":{tokens}'

    def usage(self, tokens: int, cached: int | None) -> str:
        """Return the chunk without a choice."""
        known = self._facts.cached_tokens and cached is not None
        details = f',"prompt_tokens_details":{{"cached_tokens":{cached}}}' if known else ""
        return f'{self.before}[],"usage":{{{self.counts(tokens)}{details}}}{self._fingerprint}}}\n\n'


def _scalar(value: str | int | None) -> str:
    if value is None:
        return "null"
    return json_text(value) if isinstance(value, str) else str(value)
