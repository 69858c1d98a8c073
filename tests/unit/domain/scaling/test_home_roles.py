"""Automatic roles change nothing of the desired numbers, which are of executors by the role they were started with."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.scaling.delayed_count import DelayedCount
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.scaling.settings import Bounds, ScalingSettings
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_scheduler

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING


def make_fleet(**scaling: Any) -> Scheduler:
    """Make two prefill and three decode instances; roles change as soon as a side is pressed."""
    settings = {"up_delay_s": 0.0, "down_delay_s": 60.0, "bounds": Bounds(least=2, most=3), **scaling}
    scheduler = make_scheduler(
        pd=PdSettings(mode=SplitMode.ALWAYS),
        roles=RoleSettings(automatic=True, delay_s=0.0),
        scaling=ScalingSettings(enabled=True, **settings),
    )
    facts = make_facts(kv_connector="c", compatibility_key="k")
    for n in range(2):
        add_instance(scheduler, f"p{n}", facts=facts, role=PREFILLING)
    for n in range(3):
        add_instance(scheduler, f"d{n}", facts=facts, role=DECODING)
    return scheduler


def press(scheduler: Scheduler, now: float) -> None:
    pool = scheduler._registry.pool(MODEL)
    pool.load.add(100, 1.0, now)
    for _ in range(20):
        pool.legs.split(now, wait_share=0.6, token_share=0.0)


def look(scheduler: Scheduler, now: float) -> dict[InstanceRole, DesiredInstances]:
    return {each.role: each for each in scheduler.scale({}, now)}


def test_a_change_moves_the_need_and_leaves_the_numbers() -> None:
    scheduler = make_fleet()
    before = look(scheduler, 0.0)
    assert {role: each.desired for role, each in before.items()} == {PREFILLING: 2, DECODING: 3}
    press(scheduler, 1.0)
    (change,) = scheduler.balance_roles(frozenset(), 1.0)
    assert change.role is PREFILLING
    after = look(scheduler, 5.0)
    assert {role: each.desired for role, each in after.items()} == {PREFILLING: 2, DECODING: 3}
    assert {role: each.ready for role, each in after.items()} == {PREFILLING: 2, DECODING: 3}
    assert set(after[DECODING].remove_first) == {"d0", "d1", "d2"}
    assert set(after[PREFILLING].remove_first) == {"p0", "p1"}
    assert after[PREFILLING].reason.endswith("; automatic roles lent it 1")
    assert after[DECODING].reason.endswith("; automatic roles took from it 1")


def test_idle_sides_fall_to_their_bounds_and_not_below() -> None:
    scheduler = make_fleet()
    look(scheduler, 0.0)
    press(scheduler, 1.0)
    scheduler.balance_roles(frozenset(), 1.0)
    for at in range(1, 60):
        idle = look(scheduler, 5.0 * at)
    assert {role: each.desired for role, each in idle.items()} == {PREFILLING: 2, DECODING: 2}


@pytest.mark.parametrize("least", [0, 1])
def test_an_idle_model_goes_down_to_its_minimum_whatever_was_lent(least: int) -> None:
    """The executor of a role that was lent would run for nobody otherwise."""
    scheduler = make_fleet(bounds=Bounds(least=least, most=6), idle_s=30.0)
    look(scheduler, 0.0)
    press(scheduler, 1.0)
    scheduler.balance_roles(frozenset(), 1.0)
    for at in range(1, 60):
        idle = look(scheduler, 5.0 * at)
    assert {role: each.desired for role, each in idle.items()} == {PREFILLING: least, DECODING: least}


def test_the_loss_of_a_changed_instance_is_made_up_for_where_it_came_from() -> None:
    scheduler = make_fleet()
    look(scheduler, 0.0)
    press(scheduler, 1.0)
    (change,) = scheduler.balance_roles(frozenset(), 1.0)
    look(scheduler, 5.0)
    scheduler.transition(change.instance_id, InstanceState.LOST, "as the test wants", 6.0)
    after = look(scheduler, 10.0)
    assert (after[DECODING].desired, after[DECODING].ready) == (3, 2)
    assert (after[PREFILLING].desired, after[PREFILLING].ready) == (2, 2)


def test_a_role_given_by_hand_counts_for_the_new_role() -> None:
    scheduler = make_fleet()
    look(scheduler, 0.0)
    scheduler.set_role("d0", PREFILLING)
    after = look(scheduler, 5.0)
    assert (after[PREFILLING].ready, after[DECODING].ready) == (3, 2)


def test_a_number_that_is_moved_goes_on_from_there() -> None:
    count = DelayedCount(3, 0.0)
    for at in (0.0, 20.0):
        count.wish(3, at, up_delay_s=0.0, down_delay_s=10.0, present=3)
    count.shift(-1)
    assert count.count == 2
    assert count.wish(2, 21.0, up_delay_s=0.0, down_delay_s=10.0, present=2) == 2
