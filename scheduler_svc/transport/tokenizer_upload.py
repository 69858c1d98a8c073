"""Tokenizer files that arrive in pieces on a control stream."""

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
    """Collects the pieces of one control stream and installs the files after the last piece.

    It holds at most TOKENIZER_LIMIT_BYTES.  Installing runs in its own task; ``installed`` is called after that.
    """

    def __init__(self, tokenizers: Tokenizers, installed: Callable[[], None]) -> None:
        self._tokenizers = tokenizers
        self._installed = installed
        self._data = bytearray()
        self._install: asyncio.Task[None] | None = None

    def take(self, chunk: executor_pb2.TokenizerChunk) -> None:
        """Add a piece.  Raises WireError above the size limit, which ends the stream."""
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
        """Drop an incomplete document when the stream ends; a complete one is still installed."""
        self._data = bytearray()

    async def _run(self, tokenizer_hash: str, document: bytes) -> None:
        try:
            await self._tokenizers.install(tokenizer_hash, document)
        except ValueError as error:
            # Requests for its model are refused with NO_INSTANCE, which names the missing tokenizer.
            log.error("tokenizer %s refused: %s", tokenizer_hash[:12], error)
            return
        log.info("tokenizer %s installed (%d bytes)", tokenizer_hash[:12], len(document))
        self._installed()
