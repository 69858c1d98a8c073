"""Executors that are too many sleep instead of ending, and are woken instead of others being started."""

from __future__ import annotations

from sage_fleet.controller.resting import GroupInstance, RestChange, rest_change


def ready(*names: str) -> list[GroupInstance]:
    return [GroupInstance(instance_id=name, ready=True) for name in names]


def asleep(*names: str) -> list[GroupInstance]:
    return [GroupInstance(instance_id=name, resting=True, asleep=True) for name in names]


def draining(*names: str) -> list[GroupInstance]:
    return [GroupInstance(instance_id=name, resting=True) for name in names]


def change(
    instances: list[GroupInstance], needed: int, *, keep: int = 2, remove_first: tuple[str, ...] = ()
) -> RestChange:
    return rest_change(instances, needed=needed, keep=keep, most=4, remove_first=remove_first)


def test_those_that_are_needed_least_sleep_as_many_as_are_kept() -> None:
    found = change(ready("a", "b", "c", "d"), 1, remove_first=("c", "elsewhere", "b", "a", "d"))
    assert found == RestChange(executors=3, sleep=("c", "b"), end_first=("elsewhere", "a", "d"))
    assert change(ready("a"), 1) == RestChange(executors=1)
    assert change(ready("a"), 0).sleep == ("a",)


def test_those_that_sleep_are_woken_before_others_are_started() -> None:
    assert change([*ready("a"), *asleep("b", "c")], 2) == RestChange(executors=3, wake=("b",))
    assert change([*ready("a"), *asleep("b", "c")], 4) == RestChange(executors=4, wake=("b", "c"))


def test_one_that_still_drains_counts_as_asleep_and_cannot_be_woken() -> None:
    assert change([*ready("a"), *draining("b"), *asleep("c")], 1) == RestChange(executors=3)
    assert change([*ready("a"), *draining("b")], 2) == RestChange(executors=3)


def test_one_that_starts_is_not_put_to_sleep() -> None:
    starting = GroupInstance(instance_id="b")
    assert change([*ready("a"), starting], 0).sleep == ("a",)


def test_a_group_never_has_more_executors_than_its_most() -> None:
    assert change([*ready("a", "b", "c"), *asleep("d")], 3, keep=4) == RestChange(executors=4)
    found = change([*ready("a", "b"), *asleep("c", "d")], 2, keep=1)
    assert found == RestChange(executors=3, end_first=("d",))
