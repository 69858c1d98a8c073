"""How many bytes of images and audio the requests of a process hold together, beside their bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MEDIA_BYTES = 256 * 1024 * 1024
"""Bytes that all requests of a process may hold, by default."""

LEAST_MEDIA_BYTES = 64 * 1024 * 1024
"""The lowest bound that may be set: any one request fits, with 8 MiB fetched and ten minutes of audio decoded."""

MOST_MEDIA_BYTES = 1 << 40
"""The highest one."""


class MediaMemoryFull(Exception):
    """Requests that run hold so many bytes that there is no room for more; ``str()`` says how many."""


class MediaMemory:
    """Bytes that requests hold for as long as they run: what was fetched for them, and audio that was decoded."""

    def __init__(self, limit_bytes: int = MEDIA_BYTES) -> None:
        self._limit = limit_bytes
        self.taken = 0  # bytes

    @contextmanager
    def held(self) -> Iterator[HeldMedia]:
        """Give back at the end of the ``with`` what a request took."""
        held = HeldMedia(self)
        try:
            yield held
        finally:
            self.taken -= held.size

    def take(self, size: int) -> None:
        """Take bytes.  Raises MediaMemoryFull."""
        if self.taken + size > self._limit:
            raise MediaMemoryFull(
                f"the images and audio of running requests have {self.taken} bytes; the limit is {self._limit}"
            )
        self.taken += size


class HeldMedia:
    """What one request took."""

    def __init__(self, memory: MediaMemory) -> None:
        self._memory = memory
        self.size = 0  # bytes

    def take(self, size: int) -> None:
        """Take more bytes.  Raises MediaMemoryFull."""
        self._memory.take(size)
        self.size += size
