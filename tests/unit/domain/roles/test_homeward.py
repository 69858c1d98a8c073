"""Instances go back to the side that they came from when that side misses what they can do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.roles.homeward import away, missed
from scheduler_svc.domain.roles.role_change import Cause, RoleChange
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_scheduler

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING
FACTS: dict[str, Any] = {"kv_connector": "c", "compatibility_key": "k"}
LONG: dict[str, Any] = {"max_model_len": 16_384}


class Fleet:
    """Instances of one model, some of which came from the other side."""

    def __init__(self) -> None:
        self._scheduler = make_scheduler()

    def add(self, name: str, role: InstanceRole, *, came: bool = False, **facts: Any) -> Instance:
        """Add a READY instance; ``came``: from the other side."""
        other = DECODING if role is PREFILLING else PREFILLING
        start = other if came else role
        add_instance(self._scheduler, name, facts=make_facts(**(FACTS | facts)), role=start)
        if came:
            change = RoleChange(
                model=MODEL,
                instance_id=name,
                before=other,
                role=role,
                cause=Cause.PREFILL_PRESSED,
                reason="it was so",
                at=0.0,
            )
            self._scheduler.keep_role(change)
        return self._scheduler.instance(name)

    def missed(self, to: InstanceRole, *, least_left: int = 1, pinned: Collection[str] = ()) -> list[str]:
        instances = self._scheduler.instances()
        return [each.instance_id for each in missed(instances, pinned, to=to, least_left=least_left)]

    def away(self, pinned: Collection[str] = ()) -> list[str]:
        return [each.instance_id for each in away(self._scheduler.instances(), pinned)]


def test_an_instance_is_missed_where_nobody_ready_on_its_side_serves_what_it_serves() -> None:
    fleet = Fleet()
    fleet.add("p", PREFILLING)
    fleet.add("came", PREFILLING, came=True, **LONG)
    fleet.add("d", DECODING)
    long = fleet.add("long", DECODING, **LONG)
    assert fleet.missed(DECODING) == []
    long.transition(InstanceState.LOST, "its machine is gone", 1.0)
    assert fleet.missed(DECODING) == ["came"]
    assert fleet.missed(DECODING, pinned={"came"}) == []
    assert fleet.missed(DECODING, least_left=2) == [], "the floor of the side that it leaves"


def test_the_one_that_runs_least_goes_first() -> None:
    fleet = Fleet()
    fleet.add("p", PREFILLING)
    fleet.add("a", PREFILLING, came=True, **LONG).account.live = 2
    fleet.add("b", PREFILLING, came=True, **LONG)
    fleet.add("d", DECODING)
    assert fleet.missed(DECODING) == ["b", "a"]


def test_one_that_never_changed_is_missed_by_nobody() -> None:
    fleet = Fleet()
    fleet.add("p", PREFILLING, **LONG)
    fleet.add("d", DECODING)
    fleet.add("d2", DECODING)
    assert fleet.missed(DECODING) == fleet.away() == []


def test_a_hybrid_instance_that_serves_the_same_requests_whole_is_enough() -> None:
    fleet = Fleet()
    fleet.add("p", PREFILLING)
    fleet.add("came", PREFILLING, came=True, **LONG)
    hybrid = fleet.add("h", InstanceRole.HYBRID, **LONG)
    assert fleet.missed(DECODING) == []
    hybrid.transition(InstanceState.SUSPECT, "its heartbeat is late", 1.0)
    assert fleet.missed(DECODING) == ["came"]


def test_one_that_leaves_the_decode_side_is_replaced_there() -> None:
    """Whole requests run on the decode side: without a replacement they would wait there instead."""
    fleet = Fleet()
    fleet.add("p", PREFILLING)
    fleet.add("came", DECODING, came=True, **LONG)
    fleet.add("d", DECODING)
    assert fleet.missed(PREFILLING) == []
    fleet.add("long", DECODING, **LONG)
    assert fleet.missed(PREFILLING) == ["came"]
