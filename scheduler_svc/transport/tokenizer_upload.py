"""Tokenizer files arriving in pieces on a control stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sage.controlplane.v1 import executor_pb2
from sage_wire.errors import ErrorReason
from sage_wire.protocol import TOKENIZER_LIMIT_BYTES
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.transport.errors import WireError

log = logging.getLogger(__name__)


class TokenizerUpload:
    """At most TOKENIZER_LIMIT_BYTES are held; the last piece has the files installed off the loop."""

    def __init__(self, tokenizers: Tokenizers, installed: Callable[[], None]) -> None:
        self._tokenizers = tokenizers
        self._installed = installed
        self._data = bytearray()
        self._install: asyncio.Task[None] | None = None

    def take(self, chunk: executor_pb2.TokenizerChunk) -> None:
        """Raises WireError past the bound: the stream ends with it."""
        if len(self._data) + len(chunk.data) > TOKENIZER_LIMIT_BYTES:
            raise WireError(
                ErrorReason.INVALID_REGISTRATION,
                f"tokenizer files are larger than {TOKENIZER_LIMIT_BYTES} bytes",
            )
        self._data += chunk.data
        if chunk.last:
            document, self._data = bytes(self._data), bytearray()
            self._install = asyncio.create_task(self._run(chunk.tokenizer_hash, document), name="install-tokenizer")

    def abandon(self) -> None:
        """The stream is over: half a document is worth nothing, a whole one is still installed."""
        self._data = bytearray()

    async def _run(self, tokenizer_hash: str, document: bytes) -> None:
        try:
            await self._tokenizers.install(tokenizer_hash, document)
        except ValueError as error:
            # Its instances stay out of reach for text; the log says why, token ids still work elsewhere.
            log.error("tokenizer %s refused: %s", tokenizer_hash[:12], error)
            return
        log.info("tokenizer %s installed (%d bytes)", tokenizer_hash[:12], len(document))
        self._installed()
