"""Chooses which adapters each instance of a model holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterUse:
    """Use of an adapter by requests."""

    name: str
    requests: int = 0  # accepted ones that name it and have not ended
    used_at: float = 0.0  # when it was named last, or added; seconds on the scheduler's clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """An instance that can hold adapters."""

    instance_id: str
    slots: int
    holds: frozenset[str] = frozenset()  # what it was told to hold before
    cannot: frozenset[str] = frozenset()  # those that failed to load there, or that it has from its engine's start


def select(uses: Iterable[AdapterUse], holders: Sequence[Holder]) -> dict[str, tuple[str, ...]]:
    """Return the names that each instance is to hold, by its id, the most wanted first.

    Names that it holds, that requests use, and that stay are never exchanged for others in use, unless these are held
    nowhere else.
    """
    used = {use.name: use for use in uses}
    chosen = {each.instance_id: _most_wanted(used, each) for each in holders}
    _find_place_for_missing(used, holders, chosen)
    return {instance_id: tuple(names) for instance_id, names in chosen.items()}


def _most_wanted(used: Mapping[str, AdapterUse], holder: Holder) -> list[str]:
    def rank(name: str) -> tuple[bool, bool, float, str]:
        use = used[name]
        return not use.requests, name not in holder.holds if use.requests else False, -use.used_at, name

    return sorted(used.keys() - holder.cannot, key=rank)[: holder.slots]


def _find_place_for_missing(
    used: Mapping[str, AdapterUse], holders: Sequence[Holder], chosen: Mapping[str, list[str]]
) -> None:
    """Give each adapter that is in use and chosen nowhere the place of one that is chosen elsewhere as well."""
    counts = Counter(name for names in chosen.values() for name in names)
    missing = sorted(
        (use for use in used.values() if use.requests and not counts[use.name]), key=lambda use: (use.used_at, use.name)
    )
    for use in missing:
        places = [
            (used[name].requests, used[name].used_at, holder.instance_id, name)
            for holder in holders
            if use.name not in holder.cannot
            for name in chosen[holder.instance_id]
            if counts[name] > 1
        ]
        if places:
            _, _, instance_id, name = min(places)
            names = chosen[instance_id]
            names[names.index(name)] = use.name
            counts[name] -= 1
            counts[use.name] += 1
