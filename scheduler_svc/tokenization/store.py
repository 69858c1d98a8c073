"""The tokenizers that the scheduler holds, by hash."""

from __future__ import annotations

import hashlib
import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from scheduler_svc.control.requests.submission import TOKEN_ID
from scheduler_svc.control.requests.tokenizers import NO_LIMITS, Conversation, PromptError, TokenizingLimits
from scheduler_svc.tokenization.chat_template import ChatTemplate
from scheduler_svc.tokenization.fair_threads import FairThreads
from scheduler_svc.tokenization.text_bound import bytes_per_token, least_words, one_word_per_token

INLINE_CHARACTERS = 2_000
"""Texts of up to this many characters are tokenized on the event loop.

That takes about 0.3 ms, which is less than a request under load pays for the way to a thread and back.
"""


LONG_CHARACTERS = 64_000
"""Texts of more characters than this wait for threads of their own, so that shorter ones do not wait behind them."""

COMPRESSION = 1
"""zlib's level for documents, which front ends ask for: the fastest, which makes a quarter of 10 MB within 0.2 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    tokenizer: Tokenizer
    template: ChatTemplate | None
    bytes_per_token: int | None  # the most; None: there is no bound
    one_word_per_token: bool  # so that words bound the tokens, too
    compressed: bytes  # the document it was made of, by zlib

    def check_length(self, text: str, most_tokens: int | None) -> None:
        """Raise PromptError if the text is certain to have more than ``most_tokens`` tokens."""
        if most_tokens is None or self.bytes_per_token is None:
            return
        most_bytes = most_tokens * self.bytes_per_token
        if 4 * len(text) > most_bytes and (size := len(text.encode(errors="replace"))) > most_bytes:
            raise PromptError(f"has {size} bytes; the model's {most_tokens} tokens hold at most {most_bytes}, or fewer")
        if self.one_word_per_token and len(text) > most_tokens and least_words(text, most_tokens) > most_tokens:
            raise PromptError(
                f"has more than {most_tokens} words; the model's {most_tokens} tokens hold one each at most"
            )


class TokenizerStore:
    """Implements control's Tokenizers.

    It holds at most ``limit`` tokenizers; the one that was used longest ago is dropped first, and asked for again when
    a request needs it (``ModelDirectory.resolve``).  Long texts and all templates run in ``threads``
    threads, of which no tenant gets all for long; prompts of more than LONG_CHARACTERS, and new tokenizers, in as many
    others.
    """

    def __init__(self, *, threads: int = 2, limit: int = 64) -> None:
        self._models: dict[str, _Model] = {}
        self._limit = limit
        self._threads = FairThreads(threads, "tokenize")
        self._long_threads = FairThreads(threads, "tokenize-long")

    def close(self) -> None:
        """Stop the threads without waiting for them."""
        self._threads.close()
        self._long_threads.close()

    def has(self, tokenizer_hash: str) -> bool:
        """Return whether the tokenizer with this hash is here."""
        return tokenizer_hash in self._models

    async def install(self, tokenizer_hash: str, document: bytes) -> None:
        """Add a tokenizer.  ``document`` is JSON: tokenizer_json, chat_template, special_tokens.

        Raises ValueError if the document does not have this hash or does not hold a tokenizer.
        """
        model = await self._long_threads.run("", lambda: _parse(tokenizer_hash, document))
        self._models[tokenizer_hash] = model
        while len(self._models) > self._limit:
            del self._models[next(iter(self._models))]

    def document(self, tokenizer_hash: str, piece_bytes: int) -> Iterator[bytes]:
        """Return the document that was installed, in pieces of at most ``piece_bytes``.

        Raises KeyError if the tokenizer is not here.
        """
        return _pieces(self._used(tokenizer_hash).compressed, piece_bytes)

    async def encode(
        self, tokenizer_hash: str, text: str, limits: TokenizingLimits = NO_LIMITS, *, special_tokens: bool
    ) -> Sequence[int]:
        """Return the token ids of a text.

        Raises PromptError if it cannot fit, KeyError if the tokenizer is not here.
        """
        model = self._used(tokenizer_hash)
        if len(text) <= INLINE_CHARACTERS:
            model.check_length(text, limits.most_tokens)
            return array(TOKEN_ID, model.tokenizer.encode(text, add_special_tokens=special_tokens).ids)

        def tokenized() -> Sequence[int]:
            model.check_length(text, limits.most_tokens)
            return _encode(model, text, special_tokens, limits.most_tokens)

        return await self._threads_for(len(text)).run(limits.tenant, tokenized)

    async def encode_chat(
        self, tokenizer_hash: str, conversation: Conversation, limits: TokenizingLimits = NO_LIMITS
    ) -> Sequence[int]:
        """Return the token ids of a conversation, rendered by the model's chat template.

        Raises PromptError if there is no template, it refuses the conversation or its text cannot fit, KeyError if the
        tokenizer is not here.
        """
        model = self._used(tokenizer_hash)
        template = model.template
        if template is None:
            raise PromptError("the model has no chat template; send text or token ids")

        def rendered() -> Sequence[int]:
            text = template.render(conversation)
            model.check_length(text, limits.most_tokens)
            return _encode(model, text, False, limits.most_tokens)

        # The template is the model author's program: it never runs on the event loop.
        threads = self._threads_for(sum(len(turn.text) for turn in conversation.turns))
        return await threads.run(limits.tenant, rendered)

    def _threads_for(self, characters: int) -> FairThreads:
        return self._long_threads if characters > LONG_CHARACTERS else self._threads

    def _used(self, tokenizer_hash: str) -> _Model:
        """Return the tokenizer, which now is the one used last.  Raises KeyError."""
        model = self._models[tokenizer_hash] = self._models.pop(tokenizer_hash)
        return model


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
    return _Model(
        tokenizer=tokenizer,
        template=template,
        bytes_per_token=bytes_per_token(tokenizer),
        one_word_per_token=one_word_per_token(tokenizer),
        compressed=zlib.compress(document, COMPRESSION),
    )


def _pieces(compressed: bytes, piece_bytes: int) -> Iterator[bytes]:
    expanding = zlib.decompressobj()
    piece = expanding.decompress(compressed, piece_bytes)
    while piece:
        yield piece
        piece = expanding.decompress(expanding.unconsumed_tail, piece_bytes)


def _encode(model: _Model, text: str, special_tokens: bool, most_tokens: int | None) -> Sequence[int]:
    """Tokenize in a thread.  Raises PromptError for more than twice ``most_tokens`` tokens.

    ``encode_batch_fast`` releases the interpreter's lock; ``encode`` would hold it, and the event loop with it.  So
    would the list of ids, for 20 ms a million: it is not made for a text that is far too long.
    """
    [encoding] = model.tokenizer.encode_batch_fast([text], add_special_tokens=special_tokens)
    if most_tokens is not None and len(encoding) > 2 * most_tokens:
        raise PromptError(f"has {len(encoding)} tokens; the model serves {most_tokens} tokens of prompt and output")
    return array(TOKEN_ID, encoding.ids)
