"""Which executors of a group start and which drain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sage_fleet.places.group_changes import GroupChange, Member, next_change, removal_rank


def member(number: int, version: str = "new", *, ready: bool = True, draining: bool = False) -> Member:
    return Member(number=number, version=version, ready=ready, broken=not ready, draining=draining)


def change(members: Iterable[Member], count: int, *, room: bool = True) -> GroupChange:
    return next_change(list(members), count=count, version="new", room=room)


def test_of_those_that_are_ready_the_ones_that_are_to_go_first_drain_first() -> None:
    first = ["g-1", "g-2"]
    own = [replace(member(number), removal=removal_rank(f"g-{number}", first)) for number in (1, 2, 3)]
    assert change(own, 2).drain == (1,)
    assert change(own, 1).drain == (2, 1)
    assert change([*own, member(4, ready=False)], 3).drain == (4,)


def test_a_group_without_executors_starts_all() -> None:
    assert change([], 3) == GroupChange(start=(1, 2, 3))


def test_a_group_as_it_is_wanted_is_left_alone() -> None:
    assert change([member(1), member(2, ready=False)], 2) == GroupChange()


def test_the_highest_numbers_drain_first() -> None:
    assert change([member(1), member(2), member(3)], 1) == GroupChange(drain=(2, 3))


def test_those_that_are_not_ready_drain_before_those_that_are() -> None:
    assert change([member(1, ready=False), member(2), member(3)], 2) == GroupChange(drain=(1,))


def test_the_number_of_one_that_still_drains_is_not_given_again() -> None:
    assert change([member(1), member(2, draining=True)], 2) == GroupChange(start=(3,))


def test_with_room_the_new_one_starts_before_an_old_one_drains() -> None:
    old = [member(1, "old"), member(2, "old")]
    assert change(old, 2) == GroupChange(start=(3,))
    assert change([*old, member(3, ready=False)], 2) == GroupChange()
    assert change([*old, member(3)], 2) == GroupChange(start=(4,), drain=(2,))
    assert change([member(1, "old"), member(2, "old", draining=True), member(3)], 2) == GroupChange(start=(4,))


def test_without_room_one_old_one_at_a_time_makes_it() -> None:
    old = [member(1, "old"), member(2, "old")]
    assert change(old, 2, room=False) == GroupChange(drain=(2,))
    assert change([member(1, "old"), member(2, "old", draining=True)], 2, room=False) == GroupChange()
    assert change([member(1, "old"), member(3, ready=False)], 2, room=False) == GroupChange()
    assert change([member(1, "old"), member(3)], 2, room=False) == GroupChange(drain=(1,))
    assert change([*old, member(3)], 2, room=False) == GroupChange(drain=(2,)), "one of them, not both"


def test_an_old_one_that_does_not_work_is_replaced_at_once() -> None:
    assert change([member(1, "old", ready=False)], 1) == GroupChange(start=(2,), drain=(1,))


def test_a_group_that_goes_drains_all() -> None:
    gone = next_change([member(1, "old"), member(2, "old")], count=0, version="", room=False)
    assert gone == GroupChange(drain=(1, 2))


@given(
    st.lists(st.tuples(st.sampled_from(["old", "new"]), st.booleans()), max_size=6),
    st.integers(0, 5),
    st.integers(0, 6),
)
def test_it_comes_to_what_is_wanted_and_never_serves_with_fewer_than_it_can(
    kinds: list[tuple[str, bool]], count: int, devices: int
) -> None:
    """Every started executor becomes READY, every drained one ends; ``devices`` hold so many at a time."""
    members = {number: member(number, version, ready=ready) for number, (version, ready) in enumerate(kinds, 1)}
    devices = max(devices, len(members), count)
    for _ in range(60):
        made = next_change(list(members.values()), count=count, version="new", room=len(members) < devices)
        if made == GroupChange() and all(each.ready and not each.draining for each in members.values()):
            break
        for number in made.drain:
            members[number] = replace(members[number], draining=True)
        for number in made.start:
            assert number not in members
            if len(members) < devices:
                members[number] = member(number, ready=False)
        serving = sum(each.ready and not each.draining for each in members.values())
        assert serving >= min(count, sum(ready for _, ready in kinds)) - 1
        members = {
            number: replace(each, ready=True, broken=False) for number, each in members.items() if not each.draining
        }
    assert [each.version for each in members.values()] == ["new"] * count
