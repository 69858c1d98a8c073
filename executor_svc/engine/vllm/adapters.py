"""LoRA adapters of an engine: those from its start, and those that are added and removed while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from executor_svc.engine.vllm.adapter_files import find_adapter
from executor_svc.engine.vllm.errors import first_line
from executor_svc.runtime.engine_port import AdapterSource, EngineError, EngineFacts, LoadedAdapter, ModelError


def adapter_requests(paths: Mapping[str, str]) -> dict[str, Any]:
    """Return vLLM's LoRARequest for each adapter, by name; ``paths``: folder of each, by name."""
    from vllm.lora.request import LoRARequest

    return {
        name: LoRARequest(lora_name=name, lora_int_id=number, lora_path=path)
        for number, (name, path) in enumerate(paths.items(), start=1)
    }


class EngineAdapters:
    """The adapters of one AsyncLLM by the names that requests give; one is added at a time."""

    def __init__(
        self,
        llm: Any,
        paths: Mapping[str, str],
        *,
        facts: EngineFacts,
        cache_dir: Path | None,
        bytes_limit: int,
        changed: Callable[[Mapping[str, str]], None],
    ) -> None:
        """``paths``: folders of those from the engine's start, by name.  ``cache_dir``: where downloads are kept.
        ``bytes_limit``: most bytes of one download.

        ``changed`` is called with the names that requests may give, by vLLM's names, when they change.
        """
        self._llm = llm
        self._slots, self._rank = facts.adapter_slots, facts.adapter_rank
        self._cache_dir, self._bytes_limit = cache_dir, bytes_limit
        self._changed = changed
        self._requests = adapter_requests(paths)
        self._from_start = frozenset(self._requests)
        self._numbers = count(len(self._requests) + 1)

    @property
    def names(self) -> frozenset[str]:
        """The adapters that requests may name now."""
        return frozenset(self._requests)

    def request(self, name: str) -> Any:
        """Return vLLM's LoRARequest of an adapter."""
        return self._requests[name]

    async def load_all(self) -> None:
        """Load those from the engine's start.  Raises ModelError for one that does not load."""
        for name, request in self._requests.items():
            await self._load(name, request)

    async def add(self, source: AdapterSource, try_out: Callable[[str], Awaitable[None]]) -> LoadedAdapter:
        """Load an adapter, and have ``try_out`` run a request with it; as ``Engine.add_adapter`` describes."""
        from vllm.lora.request import LoRARequest

        name = source.name
        if name in self._requests:
            raise ModelError(f"this engine has an adapter {name!r} already")
        if len(self._requests) - len(self._from_start) >= self._slots:
            raise ModelError(f"this engine holds {self._slots} adapters beside those from its start, and no more")
        files = await asyncio.to_thread(
            find_adapter, source, rank_limit=self._rank, bytes_limit=self._bytes_limit, cache_dir=self._cache_dir
        )
        # vLLM finds cached blocks by its own name and the path: weights that replace others have another name.
        request = LoRARequest(
            lora_name=f"{name}@{files.weights}", lora_int_id=next(self._numbers), lora_path=files.path
        )
        self._put(name, request)
        try:
            await self._load(name, request)
            await try_out(name)
        except BaseException:
            self._put(name, None)
            with contextlib.suppress(Exception):
                await self._llm.remove_lora(request.lora_int_id)
            raise
        return LoadedAdapter(weights=files.weights, rank=files.rank)

    async def remove(self, name: str) -> None:
        """Unload an adapter that was added, as ``Engine.remove_adapter`` describes."""
        if name in self._from_start:
            raise EngineError(f"adapter {name!r} is from the engine's start")
        request = self._requests.get(name)
        if request is None:
            return
        self._put(name, None)
        try:
            await self._llm.remove_lora(request.lora_int_id)
        except Exception as error:
            raise EngineError(f"adapter {name!r} cannot be unloaded: {first_line(error)}") from error

    def _put(self, name: str, request: Any | None) -> None:
        """Let requests name an adapter from now on, or with None no more."""
        self._requests = {key: each for key, each in self._requests.items() if key != name}
        if request is not None:
            self._requests[name] = request
        self._changed({each.lora_name: key for key, each in self._requests.items()})

    async def _load(self, name: str, request: Any) -> None:
        try:
            loaded = await self._llm.add_lora(request)
        except Exception as error:
            raise ModelError(f"adapter {name!r} does not load: {first_line(error)}") from error
        if not loaded:
            raise ModelError(f"adapter {name!r} does not load: vLLM did not take it")
