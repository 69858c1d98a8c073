"""Orders the instances on the screen by a column, which a key chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from sage_client import Instance, InstanceState


class SortBy(Enum):
    """What instances are ordered by; those that are not READY come first whatever it is."""

    ID = "id"
    KV = "kv"  # the share of KV that is used or reserved, the fullest first
    RUN = "run"  # sequences, the most first
    WAIT = "wait"  # requests inside the engine, the most first
    TOKENS = "tokens"  # tokens per second, the most first


COLUMNS = {
    SortBy.ID: "INSTANCE",
    SortBy.KV: "KV",
    SortBy.RUN: "RUN",
    SortBy.WAIT: "WAIT",
    SortBy.TOKENS: "TOKENS/S",
}
"""The column of each."""

KEYS = {"i": SortBy.ID, "k": SortBy.KV, "r": SortBy.RUN, "w": SortBy.WAIT, "t": SortBy.TOKENS}
"""The key that chooses each."""

_FIGURES: dict[SortBy, Callable[[Instance], float]] = {
    SortBy.ID: lambda _: 0.0,
    SortBy.KV: lambda each: max(each.kv_used_tokens, each.kv_reserved_tokens) / (each.kv_capacity_tokens or 1),
    SortBy.RUN: lambda each: each.running,
    SortBy.WAIT: lambda each: each.waiting,
    SortBy.TOKENS: lambda each: each.generation_tokens_per_s,
}


def in_order(found: Iterable[Instance], by: SortBy) -> list[Instance]:
    """Return the instances in order: those that need attention first, so that they stay on a small screen."""
    figure = _FIGURES[by]
    return sorted(found, key=lambda each: (each.state is InstanceState.READY, -figure(each), each.instance_id))


def chosen_by(pressed: str, now: SortBy) -> SortBy:
    """Return what the last of the pressed keys chooses; ``now`` if none chooses anything."""
    return next((KEYS[key] for key in reversed(pressed.lower()) if key in KEYS), now)
