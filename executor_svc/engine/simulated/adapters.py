"""The LoRA adapters of a simulated engine: tokens follow from an adapter's name, not from weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.runtime.engine_port import AdapterSource, EngineError, LoadedAdapter, ModelError
from sage_common.clock import Clock

_CONFIG_BYTES = 1 << 20  # read of an adapter_config.json


class SimulatedAdapters:
    """Those from the engine's start, and those that were added."""

    def __init__(self, settings: SimulatedSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._added: set[str] = set()
        self.names = frozenset(settings.adapters)

    async def add(self, source: AdapterSource) -> LoadedAdapter:
        """Take an adapter after ``adapter_load_s``.  Raises ModelError for no such directory, a rank, a slot, a name.

        A source that looks like a hub id is there; its rank is 8.  A directory's rank is in its adapter_config.json.
        """
        settings, name = self._settings, source.name
        if name in self.names:
            raise ModelError(f"this engine has an adapter {name!r} already")
        if len(self._added) >= settings.adapter_slots:
            raise ModelError(f"this engine holds {settings.adapter_slots} adapters beside those from its start")
        rank = await asyncio.to_thread(_rank, source.source)
        limit = min(settings.adapter_rank, source.max_rank or settings.adapter_rank)
        if rank > limit:
            raise ModelError(f"adapter {name!r} has rank {rank}; {limit} is allowed")
        if settings.adapter_load_s:
            await self._clock.sleep(settings.adapter_load_s)
        self._added.add(name)
        self.names |= {name}
        return LoadedAdapter(weights=f"simulated {source.source}@{source.revision}", rank=rank)

    def remove(self, name: str) -> None:
        """Drop an adapter that was added.  Raises EngineError for one from the engine's start."""
        if name in self._settings.adapters:
            raise EngineError(f"adapter {name!r} is from the engine's start")
        self._added.discard(name)
        self.names -= {name}


def _rank(source: str) -> int:
    path = Path(source)
    if not path.is_absolute():
        return 8
    try:
        with (path / "adapter_config.json").open("rb") as file:
            rank = json.loads(file.read(_CONFIG_BYTES)).get("r")
    except FileNotFoundError:
        raise ModelError(f"{source} has no adapter_config.json: it is not an adapter's directory") from None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{source}/adapter_config.json cannot be read: {error}") from error
    if not isinstance(rank, int) or rank < 1:
        raise ModelError(f"{source}/adapter_config.json states no rank")
    return rank
