"""A LoRA adapter that operators added to the registry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterSource:
    """Where an adapter's weights are, as executors are told."""

    name: str  # what requests name
    source: str  # directory on the executor's machine, or id on the model hub
    revision: str = ""  # of the hub; empty: its default branch, or a directory
    max_rank: int = 0  # a larger rank is refused; 0: the engine's own bound only


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredAdapter:
    """An adapter of the registry."""

    model: str  # the name clients ask for
    source: AdapterSource
    removing: bool = False  # no new request may name it; it goes when the accepted ones have ended

    @property
    def name(self) -> str:
        """What requests name."""
        return self.source.name
