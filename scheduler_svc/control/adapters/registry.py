"""The adapters that operators added, kept for the next scheduler."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

from scheduler_svc.control.journal.decisions import ADAPTER, Plain
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource, RegisteredAdapter
from scheduler_svc.domain.errors import LimitReached

log = logging.getLogger(__name__)

ADAPTERS_LIMIT = 1_024
"""Adapters of all models."""


class AdapterRegistry:
    """Holds the registered adapters by model and name.  Each is a decision of operators, and is kept as they are."""

    def __init__(self, decisions: OperatorDecisions) -> None:
        self._decisions = decisions
        self._adapters: dict[tuple[str, str], RegisteredAdapter] = {}

    def load(self) -> None:
        """Take over what the journal had; what makes no sense is dropped, with a line in the log."""
        self._adapters = {}
        for name, value in self._decisions.fleet_beginning(ADAPTER).items():
            try:
                found = _adapter(value)
            except (KeyError, TypeError, ValueError) as error:
                log.warning("an adapter of the journal is dropped: %s %s: %r", name, dict(value), error)
                self._decisions.decide(name, {})
            else:
                self._adapters[found.model, found.name] = found

    def all(self) -> list[RegisteredAdapter]:
        """Return every adapter, sorted by model and name."""
        return [self._adapters[key] for key in sorted(self._adapters)]

    def of(self, model: str) -> list[RegisteredAdapter]:
        """Return the adapters of one model, sorted by name."""
        return [each for each in self.all() if each.model == model]

    def find(self, model: str, name: str) -> RegisteredAdapter | None:
        """Return an adapter; None if it is not registered."""
        return self._adapters.get((model, name))

    def put(self, adapter: RegisteredAdapter) -> None:
        """Enter an adapter, or what changed of one.  Raises LimitReached."""
        key = adapter.model, adapter.name
        if key not in self._adapters and len(self._adapters) >= ADAPTERS_LIMIT:
            raise LimitReached("adapters", ADAPTERS_LIMIT)
        self._adapters[key] = adapter
        self._decisions.decide(_key(*key), _plain(adapter))

    def begin_removal(self, adapter: RegisteredAdapter) -> RegisteredAdapter:
        """Note that an adapter is being removed; return it as it is now."""
        leaving = replace(adapter, removing=True)
        self.put(leaving)
        return leaving

    def drop(self, model: str, name: str) -> None:
        """Take an adapter out, if it is there."""
        if self._adapters.pop((model, name), None) is not None:
            self._decisions.decide(_key(model, name), {})

    def not_kept(self, adapter: RegisteredAdapter) -> str:
        """Return why an adapter is not in the journal, in words; empty if it is, or without one."""
        return self._decisions.not_kept(_key(adapter.model, adapter.name))

    async def write(self) -> None:
        """Write what changed to the journal."""
        await self._decisions.write()


def _key(model: str, name: str) -> str:
    """Return the decision's name, which is short whatever the names are."""
    return ADAPTER + blake2b(f"{len(model)}:{model}{name}".encode(), digest_size=12).hexdigest()


def _plain(adapter: RegisteredAdapter) -> dict[str, Plain]:
    source = adapter.source
    return {
        "model": adapter.model,
        "name": source.name,
        "source": source.source,
        "revision": source.revision,
        "max_rank": source.max_rank,
        "removing": int(adapter.removing),
    }


def _adapter(value: Mapping[str, Plain]) -> RegisteredAdapter:
    source = AdapterSource(
        name=str(value["name"]),
        source=str(value["source"]),
        revision=str(value["revision"]),
        max_rank=int(value["max_rank"]),
    )
    return RegisteredAdapter(model=str(value["model"]), source=source, removing=bool(value["removing"]))
