"""The port to tokenizers: texts and conversations become token ids, off the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol


class Mark(Enum):
    """What stands among the parts of a message for content that is no text."""

    IMAGE = "image"
    AUDIO = "audio"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatTurn:
    """One message of a conversation."""

    role: str
    text: str  # its texts, joined by line breaks
    name: str = ""
    parts: tuple[str | Mark, ...] = ()  # where there are several, or one is no text
    fields: Mapping[str, Any] = field(default_factory=dict)  # further ones that templates read, such as tool_calls

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that the message was sent in."""
        return tuple(each for each in self.parts if isinstance(each, str)) or (self.text,)

    @property
    def content(self) -> tuple[str | Mark, ...]:
        """The parts that the message was sent in."""
        return self.parts or (self.text,)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizingLimits:
    """On whose behalf a prompt is tokenized, and how long it may be."""

    tenant: str = ""  # tenants that wait for a thread get one in turn
    most_tokens: int | None = None  # a text that is certain to have more is refused; None: there is no limit


NO_LIMITS = TokenizingLimits()


class PromptError(Exception):
    """The caller's prompt cannot be rendered or tokenized; the message says why, in one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Messages to be rendered by the model's chat template."""

    turns: Sequence[ChatTurn]
    continue_final_message: bool = False  # the output continues the last message instead of answering it
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


class Tokenizers(Protocol):
    """Tokenizers by the hash of their files."""

    def has(self, tokenizer_hash: str) -> bool:
        """Return whether the tokenizer is here."""
        ...

    async def install(self, tokenizer_hash: str, document: bytes) -> None:
        """Add a tokenizer.  Raises ValueError if the document does not have this hash or is no tokenizer."""
        ...

    async def encode(
        self, tokenizer_hash: str, text: str, limits: TokenizingLimits = NO_LIMITS, *, special_tokens: bool
    ) -> Sequence[int]:
        """Return the token ids of a text; ``special_tokens`` adds the model's own.

        Raises PromptError; KeyError if the tokenizer is not here.
        """
        ...

    async def encode_chat(
        self, tokenizer_hash: str, conversation: Conversation, limits: TokenizingLimits = NO_LIMITS
    ) -> Sequence[int]:
        """Render a conversation with the model's chat template and return its token ids.

        Raises PromptError; KeyError if the tokenizer is not here.
        """
        ...
