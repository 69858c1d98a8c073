"""A network on which a handoff changes: one KV block of it becomes another."""

from __future__ import annotations

import re

from tests.support.network_proxy import NetworkProxy

# In an Assign, field 12 and its length before it; a ReleaseKv has the same parameters and passes.
FIRST_BLOCK = re.compile(rb'(\x62[\x80-\xff][\x01-\x7f]\{[^}]*"remote_block_ids": \[\[)(\d)')


class AlteringProxy(NetworkProxy):
    """Passes everything on as it is, but for the next ``alter`` handoffs: their first block gets another number.

    The bytes stay as many and the JSON stays good, so that only what the seal guards against is wrong.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._due = 0
        self.altered = 0

    def alter(self, handoffs: int) -> None:
        self._due = handoffs

    def passed(self, data: bytes) -> bytes:
        if not self._due:
            return data
        changed, found = FIRST_BLOCK.subn(self._another, data, count=self._due)
        self._due -= found
        self.altered += found
        return changed

    @staticmethod
    def _another(match: re.Match[bytes]) -> bytes:
        return match[1] + (b"2" if match[2] == b"1" else b"1")
