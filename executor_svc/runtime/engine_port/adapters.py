"""LoRA adapters that are added while an engine runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterSource:
    """A LoRA adapter that is added while the engine runs, and where its weights are."""

    name: str  # what requests name
    source: str  # directory on this machine, or id on the model hub
    revision: str = ""  # branch, tag or commit of the hub; empty: the default branch, or a directory
    max_rank: int = 0  # a larger rank is refused; 0: the engine's own bound only


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedAdapter:
    """Facts of an adapter, known once the engine made tokens with it."""

    weights: str  # fingerprint: engines with equal ones compute the same with it
    rank: int
