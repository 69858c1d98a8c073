"""The tokenizers the scheduler holds, by hash."""

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
"""Texts up to this length are tokenized on the loop: it takes about 0.3 ms, less than handing over to a thread costs
a request under load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    tokenizer: Tokenizer
    template: ChatTemplate | None


class TokenizerStore:
    """Implements control's Tokenizers.  Bounded: the fleet's models, at most ``limit``; the oldest leaves first."""

    def __init__(self, *, threads: int = 2, limit: int = 64) -> None:
        self._models: dict[str, _Model] = {}
        self._limit = limit
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="tokenize")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def has(self, tokenizer_hash: str) -> bool:
        return tokenizer_hash in self._models

    async def install(self, tokenizer_hash: str, document: bytes) -> None:
        """``document`` is JSON: tokenizer_json, chat_template, special_tokens.

        Raises ValueError if it does not have this hash or is no tokenizer.
        """
        model = await self._in_thread(lambda: _parse(tokenizer_hash, document))
        self._models[tokenizer_hash] = model
        while len(self._models) > self._limit:
            del self._models[next(iter(self._models))]

    async def encode(self, tokenizer_hash: str, text: str, *, special_tokens: bool) -> Sequence[int]:
        model = self._models[tokenizer_hash]
        if len(text) <= INLINE_CHARACTERS:
            return list(model.tokenizer.encode(text, add_special_tokens=special_tokens).ids)
        return await self._in_thread(lambda: _encode(model, text, special_tokens))

    async def encode_chat(self, tokenizer_hash: str, conversation: Conversation) -> Sequence[int]:
        model = self._models[tokenizer_hash]
        template = model.template
        if template is None:
            raise PromptError("this model has no chat template; send text or token ids")
        # A template is the model author's program: it never runs on the loop.
        return await self._in_thread(lambda: _encode(model, template.render(conversation), False))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _parse(tokenizer_hash: str, document: bytes) -> _Model:
    found = hashlib.sha256(document).hexdigest()
    if found != tokenizer_hash:
        raise ValueError(f"tokenizer files hash to {found}, announced was {tokenizer_hash}")
    try:
        content = json.loads(document)
        tokenizer = Tokenizer.from_str(content["tokenizer_json"])
        tokenizer.no_padding()
        tokenizer.no_truncation()
        source = content.get("chat_template")
        template = ChatTemplate(source, content.get("special_tokens") or {}) if source else None
    except Exception as error:  # the library raises bare Exception, and files may be wrong in any way
        raise ValueError(f"not a tokenizer and its template: {error}") from error
    return _Model(tokenizer=tokenizer, template=template)


def _encode(model: _Model, text: str, special_tokens: bool) -> Sequence[int]:
    """For threads.  ``encode`` keeps the interpreter's lock until it is done: the loop would stand still with it."""
    [encoding] = model.tokenizer.encode_batch_fast([text], add_special_tokens=special_tokens)
    return list(encoding.ids)
