"""What is said before a fleet is applied."""

from __future__ import annotations

from sage_fleet.places.changes import SCHEDULER, SERVICES, changes
from sage_fleet.places.place_status import ExecutorStatus, GroupStatus, PlaceStatus
from sage_fleet.places.versions import group_version, services_version
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.fleet_file import parse_fleet

FLEET = parse_fleet("groups: {chat: {model: m, count: 2}, scaled: {model: n, min: 1, max: 3}}")


def applied(fleet: Fleet, **counts: int) -> PlaceStatus:
    groups = {
        name: GroupStatus(
            version=group_version(fleet, name),
            wanted=counts.get(name, group.least),
            executors=(ExecutorStatus(name=f"{name}-1", state="running"),),
        )
        for name, group in fleet.groups.items()
    }
    return PlaceStatus(running=True, services=services_version(fleet), groups=groups)


def said(fleet: Fleet, status: PlaceStatus) -> dict[str, str]:
    return {each.of: each.what for each in changes(fleet, status)}


def test_at_first_all_starts() -> None:
    assert said(FLEET, PlaceStatus(running=False)) == {
        SCHEDULER: "starts",
        "chat": "2 executors start",
        "scaled": "1 executor starts",
    }


def test_a_gateway_starts_only_where_one_is_described() -> None:
    fleet = parse_fleet("gateway: {address: 127.0.0.1:8000}\ngroups: {chat: {model: m, count: 2}}")
    assert said(fleet, PlaceStatus(running=False)) == {SERVICES: "start", "chat": "2 executors start"}


def test_what_runs_as_described_does_not_change() -> None:
    assert said(FLEET, applied(FLEET)) == {}
    assert said(FLEET, applied(FLEET, scaled=3)) == {}, "a scaled group keeps the number that it has"


def test_other_numbers_are_said_with_those_before() -> None:
    assert said(FLEET, applied(FLEET, chat=5, scaled=9)) == {
        "chat": "2 executors instead of 5",
        "scaled": "3 executors instead of 9",
    }


def test_other_settings_replace_the_executors_of_that_group_only() -> None:
    before = parse_fleet("groups: {chat: {model: old, count: 2}, scaled: {model: n, min: 1, max: 3}}")
    assert said(FLEET, applied(before)) == {"chat": "other settings: its executors are replaced"}


def test_other_bounds_concern_the_scheduler_and_no_executor() -> None:
    before = parse_fleet("groups: {chat: {model: m, count: 2}, scaled: {model: n, min: 1, max: 2}}")
    assert said(FLEET, applied(before)) == {SERVICES: "get other settings"}


def test_a_group_comes_and_a_group_goes() -> None:
    before = parse_fleet("groups: {old: {model: m}, scaled: {model: n, min: 1, max: 3}}")
    assert said(FLEET, applied(before)) == {"chat": "2 executors start", "old": "the group goes, with 1 executor"}
