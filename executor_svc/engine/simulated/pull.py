"""The decode side of a transfer: fetches a prompt's KV from the engine that keeps it, in modelled time.

A fetch has four steps: shake hands with the other engine (once per engine), wait for free blocks while renewing the
lease, read, report that it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from executor_svc.engine.simulated.faults import FaultState
from executor_svc.engine.simulated.settings import SimulatedKvTransferSettings
from executor_svc.engine.simulated.side_channel import Message, PeerUnreachable, SideChannel
from executor_svc.runtime.engine_port import EngineError, JsonValue
from sage_common.clock import Clock

PEERS_KNOWN = 1024  # beyond that the oldest peer is forgotten, and the next fetch from it shakes hands again


class PullFailed(Exception):
    """The KV could not be fetched; the message is one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptAt:
    """The place where a prompt's KV is kept: an engine, its address, and the handoff's id there."""

    engine_id: str
    handoff_id: str
    host: str
    port: int
    tokens: int  # length of the prompt
    cached: int  # prompt tokens that were found in the other engine's prefix cache

    @classmethod
    def parse(cls, params: Mapping[str, JsonValue]) -> Self:
        """Read transfer parameters.  Raises EngineError if no simulated engine made them."""
        try:
            return cls(**params)  # type: ignore[arg-type]
        except TypeError as error:
            raise EngineError(f"the handoff does not come from a simulated engine: {error}") from error

    @property
    def params(self) -> dict[str, JsonValue]:
        """Transfer parameters, as ``parse`` reads them."""
        return asdict(self)


@dataclass(slots=True, kw_only=True, eq=False)
class Fetch:
    """A sequence's fetch, from its arrival until its KV is here."""

    source: KeptAt
    task: asyncio.Task[None] | None = None
    tokens: int = 0  # tokens that are not in the prefix cache here; known once blocks are taken
    _granted_event: asyncio.Event = field(default_factory=asyncio.Event)

    def grant(self, tokens: int) -> None:
        """Let the fetch of ``tokens`` tokens begin, because their blocks are taken."""
        self.tokens = tokens
        self._granted_event.set()

    async def granted(self) -> None:
        """Wait until the engine has blocks for the prompt."""
        await self._granted_event.wait()


class Puller:
    """Fetches KV for one engine from others."""

    def __init__(
        self,
        *,
        channel: SideChannel,
        clock: Clock,
        settings: SimulatedKvTransferSettings,
        faults: FaultState,
        compatibility_key: str,
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._settings = settings
        self._faults = faults
        self._key = compatibility_key
        self._handshakes: dict[str, asyncio.Lock] = {}  # by engine id; locked during the handshake
        self._known: set[str] = set()  # engine ids whose handshake is done

    async def pull(self, fetch: Fetch) -> bool:
        """Fetch a prompt's KV.  Return False if it is wrong KV.  Raises PullFailed."""
        if self._faults.next_pull_is_cut():
            raise PullFailed(f"{fetch.source.host}:{fetch.source.port} cannot be reached (injected)")
        try:
            await self._shake_hands(fetch.source)
            await self._wait_for_blocks(fetch)
            return await self._read(fetch)
        except PeerUnreachable as error:
            raise PullFailed(str(error)) from error

    async def release(self, source: KeptAt) -> bool:
        """Ask the engine that keeps the KV to release it.  Return False if that failed."""
        try:
            await self._shake_hands(source)
            answer = await self._ask(source, {"op": "done", "handoff_id": source.handoff_id})
        except (PeerUnreachable, PullFailed):
            return False
        return answer.get("released") is True

    async def _shake_hands(self, source: KeptAt) -> None:
        """Shake hands with the peer, unless that was done before.  Raises PeerUnreachable, PullFailed."""
        lock = self._handshakes.setdefault(source.engine_id, asyncio.Lock())
        async with lock:
            if source.engine_id in self._known:
                return
            answer = await self._ask(source, {"op": "hello"})
            await self._clock.sleep(self._settings.handshake_s)
            if answer.get("engine_id") != source.engine_id:
                raise PullFailed(f"another engine answers at {source.host}:{source.port}")
            if answer.get("compatibility_key") != self._key:
                raise PullFailed(f"{source.engine_id} is not compatible: {answer.get('compatibility_key')}")
            self._known.add(source.engine_id)
        while len(self._handshakes) > PEERS_KNOWN:
            first = next(iter(self._handshakes))
            del self._handshakes[first]
            self._known.discard(first)

    async def _wait_for_blocks(self, fetch: Fetch) -> None:
        """Keep the lease alive until the engine has blocks for the prompt."""
        granted = asyncio.ensure_future(fetch.granted())
        try:
            while not granted.done():
                beat = asyncio.ensure_future(self._clock.sleep(self._settings.lease_s / 6))
                try:
                    await asyncio.wait([granted, beat], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    beat.cancel()
                if not granted.done():
                    await self._ask(fetch.source, {"op": "renew", "handoff_id": fetch.source.handoff_id})
        finally:
            granted.cancel()

    async def _read(self, fetch: Fetch) -> bool:
        source = fetch.source
        await self._ask(source, {"op": "read", "handoff_id": source.handoff_id})
        corrupt = self._faults.next_pull_is_corrupt()
        await self._clock.sleep(self._duration(fetch.tokens))
        done = await self._ask(source, {"op": "done", "handoff_id": source.handoff_id})
        return done.get("released") is True and not corrupt  # not released: its blocks were freed earlier

    def _duration(self, tokens: int) -> float:
        settings = self._settings
        seconds = settings.pull_base_s + tokens * settings.bytes_per_token / settings.bandwidth_bytes_per_s
        return seconds * self._faults.kv_slow_factor

    async def _ask(self, source: KeptAt, message: Message) -> Message:
        return await self._channel.ask(source.host, source.port, message)
