"""Receives what vLLM's engine core tells of its prefix cache, over a ZeroMQ socket that only this user can open."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from executor_svc.engine.cache_events import CacheEvents
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import BlocksRemoved, BlocksStored, CacheCleared, CacheEvent

log = logging.getLogger(__name__)

_LONGEST_PATH = 100  # bytes; the kernel takes 107
_BATCHES_KEPT = 10_000  # that wait in the socket; beyond that ZeroMQ drops them, and the numbers show a gap


NO_ADAPTERS: Mapping[str, str] = {}


class CacheEventChannel:
    """Subscribes to vLLM's KV cache events.  ``config`` makes the engine core publish them here."""

    def __init__(self) -> None:
        """Make a directory for the socket.  Raises ImportError without vLLM, OSError if its path is too long."""
        import msgspec
        import zmq.asyncio
        import zmq.constants
        from vllm.distributed.kv_events import KVEventBatch

        self._reading: asyncio.Task[None] | None = None
        self._socket: Any = None
        self._context: Any = None
        self._directory = Path(tempfile.mkdtemp(prefix="sage-kv-"))  # for this user only
        self._path = self._directory / "events"
        if len(bytes(self._path)) > _LONGEST_PATH:
            self.close()
            raise OSError(f"the path {self._path} is too long for a socket")
        self._decode = msgspec.msgpack.Decoder(KVEventBatch).decode
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.constants.SUB)
        self._received = ReceivedEvents()

    @classmethod
    def opened(cls, settings: VllmSettings) -> Self | None:
        """Return a channel that listens; None if the settings want none or this vLLM has no such events."""
        if not settings.report_prefix_cache or settings.prefix_caching is False:
            return None
        try:
            channel = cls()
        except (ImportError, OSError) as error:
            log.warning("the prefix cache is not reported to the scheduler: %s", error)
            return None
        channel._listen()
        return channel

    @property
    def config(self) -> Mapping[str, Any]:
        """VLLM's ``kv_events_config``."""
        return {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"ipc://{self._path}"}

    def take(self) -> Sequence[CacheEvent]:
        """Return the events since the last call, oldest first."""
        return self._received.take()

    @property
    def adapters(self) -> Mapping[str, str]:
        """The names that requests give to adapters, by vLLM's; one that is not here has the same name."""
        return self._received.adapters

    @adapters.setter
    def adapters(self, names: Mapping[str, str]) -> None:
        self._received.adapters = names

    def close(self) -> None:
        """Stop listening.  Idempotent."""
        if self._reading is not None:
            self._reading.cancel()
        if self._socket is not None:
            self._socket.close(linger=0)
            self._context.term()
            self._socket = self._context = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _listen(self) -> None:
        """Connect before the engine core binds, so that no event is missed."""
        self._socket.set_hwm(_BATCHES_KEPT)
        self._socket.connect(f"ipc://{self._path}")
        self._socket.subscribe(b"")
        self._reading = asyncio.get_running_loop().create_task(self._read(), name="vllm-cache-events")

    async def _read(self) -> None:
        try:
            while True:
                _, number, payload = await self._socket.recv_multipart()
                self._received.add(int.from_bytes(number, "big"), self._decode(payload).events)
        except Exception:
            log.exception("events of the prefix cache cannot be read any more; the scheduler is told that it is empty")
            self._received.lost()


class ReceivedEvents:
    """Batches of vLLM's events, converted, until they are taken."""

    def __init__(self) -> None:
        self.adapters: Mapping[str, str] = {}  # names that requests give, by vLLM's
        self._events = CacheEvents()
        self._last_number = -1

    def take(self) -> Sequence[CacheEvent]:
        """Return the events since the last call, oldest first."""
        return self._events.take()

    def lost(self) -> None:
        """Note that events were lost: nothing that was told before counts."""
        self._events.add(CacheCleared())

    def add(self, number: int, events: Sequence[Any]) -> None:
        """Take a batch.  ``number`` counts batches from 0; after a gap nothing before it counts."""
        if number != self._last_number + 1:
            self.lost()
        self._last_number = number
        for event in events:
            found = cache_event(event, self.adapters)
            if found is not None:
                self._events.add(found)


def cache_event(event: Any, adapters: Mapping[str, str] = NO_ADAPTERS) -> CacheEvent | None:
    """Convert one of vLLM's events; None for one that is not about the prefix cache in the engine's own memory.

    ``adapters``: the names that requests give, by vLLM's.

    Blocks with further keys (images, a salt) are left out: a prompt of token ids does not find them.
    """
    kind = type(event).__name__
    if kind == "AllBlocksCleared":
        return CacheCleared()
    if getattr(event, "medium", None) not in (None, "GPU") or getattr(event, "group_idx", None) not in (None, 0):
        return None
    if kind == "BlockRemoved":
        return BlocksRemoved(hashes=tuple(event.block_hashes))
    if kind != "BlockStored":
        return None
    adapter = getattr(event, "lora_name", None) or ""
    extra = getattr(event, "extra_keys", None) or ()
    if any(keys and tuple(keys) != (adapter,) for keys in extra):
        return None
    return BlocksStored(
        hashes=tuple(event.block_hashes),
        parent=event.parent_block_hash,
        token_ids=event.token_ids,
        adapter=adapters.get(adapter, adapter),
    )
