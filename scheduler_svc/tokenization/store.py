"""The tokenizers that the scheduler holds, by hash."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tokenizers import Tokenizer

from scheduler_svc.control.requests.tokenizers import Conversation, PromptError
from scheduler_svc.tokenization.chat_template import ChatTemplate

T = TypeVar("T")

INLINE_CHARACTERS = 2_000
"""Texts of up to this many characters are tokenized on the event loop.

That takes about 0.3 ms, which is less than a request under load pays for the way to a thread and back.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    tokenizer: Tokenizer
    template: ChatTemplate | None


class TokenizerStore:
    """Implements control's Tokenizers.

    It holds at most ``limit`` tokenizers; the one that was used longest ago is dropped first, and asked for again when
    a request needs it (``ModelDirectory.resolve``).  Long texts and all templates run in ``threads``
    threads.
    """

    def __init__(self, *, threads: int = 2, limit: int = 64) -> None:
        self._models: dict[str, _Model] = {}
        self._limit = limit
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="tokenize")

    def close(self) -> None:
        """Stop the threads without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def has(self, tokenizer_hash: str) -> bool:
        """Return whether the tokenizer with this hash is here."""
        return tokenizer_hash in self._models

    async def install(self, tokenizer_hash: str, document: bytes) -> None:
        """Add a tokenizer.  ``document`` is JSON: tokenizer_json, chat_template, special_tokens.

        Raises ValueError if the document does not have this hash or does not hold a tokenizer.
        """
        model = await self._in_thread(lambda: _parse(tokenizer_hash, document))
        self._models[tokenizer_hash] = model
        while len(self._models) > self._limit:
            del self._models[next(iter(self._models))]

    async def encode(self, tokenizer_hash: str, text: str, *, special_tokens: bool) -> Sequence[int]:
        """Return the token ids of a text.  Raises KeyError if the tokenizer is not here."""
        model = self._used(tokenizer_hash)
        if len(text) <= INLINE_CHARACTERS:
            return list(model.tokenizer.encode(text, add_special_tokens=special_tokens).ids)
        return await self._in_thread(lambda: _encode(model, text, special_tokens))

    async def encode_chat(self, tokenizer_hash: str, conversation: Conversation) -> Sequence[int]:
        """Return the token ids of a conversation, rendered by the model's chat template.

        Raises PromptError if there is no template or it refuses the conversation, KeyError if the tokenizer is not
        here.
        """
        model = self._used(tokenizer_hash)
        template = model.template
        if template is None:
            raise PromptError("the model has no chat template; send text or token ids")
        # The template is the model author's program: it never runs on the event loop.
        return await self._in_thread(lambda: _encode(model, template.render(conversation), False))

    def _used(self, tokenizer_hash: str) -> _Model:
        """Return the tokenizer, which now is the one used last.  Raises KeyError."""
        model = self._models[tokenizer_hash] = self._models.pop(tokenizer_hash)
        return model

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _parse(tokenizer_hash: str, document: bytes) -> _Model:
    """Read a document of tokenizer files.  Raises ValueError."""
    found = hashlib.sha256(document).hexdigest()
    if found != tokenizer_hash:
        raise ValueError(f"tokenizer files have the hash {found}, but {tokenizer_hash} was announced")
    try:
        content = json.loads(document)
        tokenizer = Tokenizer.from_str(content["tokenizer_json"])
        tokenizer.no_padding()
        tokenizer.no_truncation()
        source = content.get("chat_template")
        template = ChatTemplate(source, content.get("special_tokens") or {}) if source else None
    except Exception as error:  # the library raises plain Exception, and files may be wrong in any way
        raise ValueError(f"not a tokenizer and its template: {error}") from error
    return _Model(tokenizer=tokenizer, template=template)


def _encode(model: _Model, text: str, special_tokens: bool) -> Sequence[int]:
    """Tokenize in a thread.

    ``encode_batch_fast`` releases the interpreter's lock; ``encode`` would hold it, and the event loop with it.
    """
    [encoding] = model.tokenizer.encode_batch_fast([text], add_special_tokens=special_tokens)
    return list(encoding.ids)
