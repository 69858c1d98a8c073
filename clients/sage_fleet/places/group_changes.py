"""Decides which executors of a group start and which drain, so that the group comes to what is wanted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One executor of a group."""

    number: int  # the N of its name, GROUP-N
    version: str  # of the settings that it was started with
    ready: bool = False  # the scheduler says that its instance is READY
    broken: bool = False  # it never was READY, its engine failed, or its process ended
    draining: bool = False
    removal: int = 0  # ``removal_rank``: of those that are READY, the largest goes first


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupChange:
    """The next step; empty where the group is as wanted, or has to wait."""

    start: tuple[int, ...] = ()  # numbers of new executors
    drain: tuple[int, ...] = ()  # numbers of executors to drain


def next_change(members: Collection[Member], *, count: int, version: str, room: bool) -> GroupChange:
    """Return the next change of a group; called again after every change of its members.

    Executors of another version are replaced one at a time: where there is ``room`` for one more, the new one starts
    first and an old one drains once the new one is READY; else an old one makes room for it.  The rest of what is too
    many drains at once: those that are not READY first, then by ``removal``, then the highest numbers.
    """
    live = [each for each in members if not each.draining]
    old = sorted((each for each in live if each.version != version), key=_worth)
    new = sorted((each for each in live if each.version == version), key=_worth)
    drain = [each.number for each in new[count:]]
    new = new[:count]
    ready = sum(each.ready for each in new)
    useful = [each for each in old if not each.broken]
    drain += [each.number for each in old if each.broken]
    drain += [each.number for each in useful[max(0, count - ready) :]]
    useful = useful[: max(0, count - ready)]
    missing = count - len(new)
    if missing <= 0:
        return GroupChange(drain=tuple(drain))
    if room and len(useful) + len(new) <= count:
        starting = missing if not useful else 1
        return GroupChange(start=_free_numbers(members, starting), drain=tuple(drain))
    all_serve = len(new) == ready and not drain and not any(each.draining for each in members)
    if not room and useful and all_serve:
        drain.append(useful[-1].number)
    return GroupChange(drain=tuple(drain))


def _worth(member: Member) -> tuple[bool, int, int]:
    """Order executors by what they are worth: the last one is the first to go."""
    return not member.ready, member.removal, member.number


def removal_rank(name: str, remove_first: Sequence[str]) -> int:
    """Return an executor's ``Member.removal``, from the names of those that are to go first; 0: it is none of them."""
    return len(remove_first) - remove_first.index(name) if name in remove_first else 0


def _free_numbers(members: Collection[Member], wanted: int) -> tuple[int, ...]:
    taken = {each.number for each in members}
    return tuple(number for number in range(1, len(taken) + wanted + 1) if number not in taken)[:wanted]
