"""Decides which executors of a group sleep instead of ending, and which are woken instead of being started."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupInstance:
    """One instance of a group, as the scheduler shows it; those that are gone are left out."""

    instance_id: str
    resting: bool = False  # it sleeps, or takes nothing new
    asleep: bool = False  # of those that rest: it can be woken
    ready: bool = False  # of the others: it can be put to sleep


@dataclass(frozen=True, kw_only=True, slots=True)
class RestChange:
    """The next step of a group."""

    executors: int  # that it is to have, those that sleep included
    sleep: tuple[str, ...] = ()
    wake: tuple[str, ...] = ()
    end_first: tuple[str, ...] = ()  # those that had better go when there are too many executors, the first one first


def rest_change(
    instances: Collection[GroupInstance], *, needed: int, keep: int, most: int, remove_first: Sequence[str]
) -> RestChange:
    """Return the next step of a group of which ``needed`` instances are to be awake.

    ``keep``: most executors beyond these that sleep; ``most``: most executors of the group.
    ``remove_first``: instances that are needed least, the first one first.
    """
    awake = [each for each in instances if not each.resting]
    resting = sorted((each for each in instances if each.resting), key=lambda each: (not each.asleep, each.instance_id))
    wake = [each.instance_id for each in resting if each.asleep][: max(0, needed - len(awake))]
    rest = [each.instance_id for each in resting if each.instance_id not in wake]
    keep = min(keep, most - needed)
    ready = {each.instance_id for each in awake if each.ready}
    order = [*(name for name in remove_first if name in ready), *sorted(ready.difference(remove_first))]
    sleep = order[: max(0, min(len(awake) - needed, keep - len(rest)))]
    kept = min(keep, len(rest) + len(sleep))
    return RestChange(
        executors=needed + kept,
        sleep=tuple(sleep),
        wake=tuple(wake),
        end_first=(*rest[max(0, keep - len(sleep)) :], *(name for name in remove_first if name not in sleep)),
    )
