"""The port to tokenizers: texts and conversations become token ids, off the event loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatTurn:
    role: str
    text: str
    name: str = ""


class PromptError(Exception):
    """The prompt cannot be rendered or tokenized; the caller's fault, said in a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    turns: Sequence[ChatTurn]
    continue_final_message: bool = False
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


class Tokenizers(Protocol):
    def has(self, tokenizer_hash: str) -> bool: ...

    async def install(self, tokenizer_hash: str, document: bytes) -> None:
        """Raises ValueError if the document does not have this hash or is no tokenizer."""
        ...

    async def encode(self, tokenizer_hash: str, text: str, *, special_tokens: bool) -> Sequence[int]:
        """Raises PromptError; KeyError if the tokenizer is not here."""
        ...

    async def encode_chat(self, tokenizer_hash: str, conversation: Conversation) -> Sequence[int]:
        """Raises PromptError; KeyError if the tokenizer is not here."""
        ...
