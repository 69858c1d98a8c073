"""The model's tokenizer: makes detokenizers, and is sent to the scheduler in chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from executor_svc.runtime.engine_port import ModelError, TokenizerFiles
from executor_svc.runtime.messages.commands import TextOptions
from executor_svc.runtime.messages.reports import TokenizerChunk
from executor_svc.runtime.text.detokenizer import Detokenizer, special_token_ids
from executor_svc.runtime.text.whole_tokens import WholeTokens

CHUNK_BYTES = 1024 * 1024


class TextSource:
    """The model's tokenizer.

    Construction takes a second or so for the largest tokenizers: do it in a thread.  Raises ModelError.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(files.tokenizer_json)
        except Exception as error:  # the library raises nothing narrower
            raise ModelError(f"the model's tokenizer.json cannot be read: {error}") from error
        self._special = special_token_ids(self._tokenizer)
        self._whole = WholeTokens.of(self._tokenizer)
        self._whole_but_special = WholeTokens.of(self._tokenizer, self._special)
        self._document = json.dumps(
            {
                "tokenizer_json": files.tokenizer_json,
                "chat_template": files.chat_template,
                "special_tokens": dict(files.special_tokens),
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        self.hash = hashlib.sha256(self._document).hexdigest()
        self.end_of_sequence_ids = self._end_ids(files)

    def _end_ids(self, files: TokenizerFiles) -> frozenset[int]:
        token = files.special_tokens.get("eos_token")
        token_id = None if token is None else self._tokenizer.token_to_id(token)
        return frozenset() if token_id is None else frozenset((token_id,))

    def detokenizer(self, options: TextOptions, prompt: Sequence[int] = ()) -> Detokenizer:
        """Make the detokenizer of one attempt, whose output follows ``prompt``."""
        whole = self._whole_but_special if options.skip_special_tokens else self._whole
        return Detokenizer(self._tokenizer, self._special, options, prompt, whole)

    def chunks(self) -> Iterator[TokenizerChunk]:
        """Yield the files as one JSON document, in pieces of at most 1 MiB."""
        for start in range(0, len(self._document), CHUNK_BYTES):
            piece = self._document[start : start + CHUNK_BYTES]
            yield TokenizerChunk(tokenizer_hash=self.hash, data=piece, last=start + CHUNK_BYTES >= len(self._document))
