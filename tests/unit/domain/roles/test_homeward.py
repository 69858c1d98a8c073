"""Instances go back to the side that they came from when that side misses what they can do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.domain.roles.homeward import away, missed
from scheduler_svc.domain.roles.settings import RoleSettings
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_scheduler

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING
FACTS: dict[str, Any] = {"kv_connector": "c", "compatibility_key": "k"}
LONG: dict[str, Any] = {"max_model_len": 16_384}


class Fleet:
    """Instances of one model, some of which came from the other side."""

    def __init__(self) -> None:
        settings = RoleSettings(automatic=True, delay_s=4.0, back_s=1_000.0, cooldown_s=1_000.0)
        self._scheduler = make_scheduler(roles=settings, pd=PdSettings(mode=SplitMode.ALWAYS))

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

    @property
    def instances(self) -> list[Instance]:
        return self._scheduler.instances()

    def look(self, now: float) -> list[RoleChange]:
        return self._scheduler.balance_roles(frozenset(), now)

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


@given(st.data())
def test_after_any_failures_a_side_gets_back_what_it_misses_and_no_side_is_emptied(data: st.DataObject) -> None:
    """Nothing is asked of the fleet, so no role changes by pressure, and none changes back and forth."""
    fleet = Fleet()
    for n in range(data.draw(st.integers(3, 8))):
        role, facts = data.draw(st.sampled_from([PREFILLING, DECODING])), data.draw(st.sampled_from([{}, LONG]))
        fleet.add(f"i{n}", role, came=data.draw(st.booleans()), **facts)
    for each in data.draw(st.lists(st.sampled_from(fleet.instances), max_size=4, unique_by=lambda i: i.instance_id)):
        each.transition(InstanceState.LOST, "as the test wants", 1.0)
    changes: list[RoleChange] = []
    for look in range(60):
        found = fleet.look(2.0 * look)
        for change in found:
            left = [i for i in fleet.instances if i.role is change.before and i.state is InstanceState.READY]
            assert left, "the last one of its side"
        changes += found
    names = [each.instance_id for each in changes]
    assert len(names) == len(set(names)), "nobody changed twice"
    assert fleet.missed(DECODING) == fleet.missed(PREFILLING) == []


def test_one_goes_back_after_the_delay_and_not_while_another_starts_there() -> None:
    fleet = Fleet()
    fleet.add("p", PREFILLING)
    fleet.add("came", PREFILLING, came=True, **LONG)
    fleet.add("d", DECODING)
    starts = fleet.add("starts", DECODING, **LONG)
    starts.transition(InstanceState.LOST, "its process ended", 0.0)
    starts.transition(InstanceState.DOWNLOADING, "registered", 0.0)
    assert [fleet.look(2.0 * look) for look in range(10)] == [[]] * 10
    starts.transition(InstanceState.LOST, "its process ended", 20.0)
    found = [fleet.look(20.0 + 2.0 * look) for look in range(4)]
    assert [len(each) for each in found] == [0, 0, 1, 0]
    (change,) = found[2]
    assert (change.instance_id, change.role, change.cause) == ("came", DECODING, Cause.DECODE_UNABLE)
