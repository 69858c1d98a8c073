"""What the scheduler reads of both sides, and what it does of itself with that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler_svc.domain.fleet.recent_legs import MEMORY_S, RecentLegs
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.roles.pressures import LATE, LONG_START_S
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.roles.side import Side
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import (
    MODEL,
    add_instance,
    make_facts,
    make_request,
    make_scheduler,
    press,
    put_in_state,
)

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING


QUICK = RoleSettings(automatic=True, delay_s=0.0)


def make_fleet(
    prefills: int = 2, decodes: int = 2, mode: SplitMode = SplitMode.ALWAYS, roles: RoleSettings = QUICK
) -> Scheduler:
    scheduler = make_scheduler(pd=PdSettings(mode=mode, threshold_input_tokens=1_000), roles=roles)
    facts = make_facts(kv_connector="c", compatibility_key="k")
    for n in range(prefills):
        add_instance(scheduler, f"p{n}", facts=facts, role=PREFILLING)
    for n in range(decodes):
        add_instance(scheduler, f"d{n}", facts=facts, role=DECODING)
    scheduler.renew_pairs()
    for pair in scheduler.pairs():
        scheduler.handed_over(pair, 0.01)
    return scheduler


def sides(scheduler: Scheduler, now: float) -> tuple[Side, Side]:
    scheduler.balance_roles(frozenset({"p0", "p1", "d0", "d1"}), now)
    return scheduler.sides[MODEL]


def arrive(scheduler: Scheduler, count: int, *, prompt: int, output: int, begin: float = 0.0) -> None:
    for n in range(count):
        now = begin + n / 10
        scheduler.enqueue(make_request(f"{begin}/{n}", prompt=prompt, output=output, arrived_at=now), now)
        scheduler.schedule(now)


def test_nothing_to_do_is_no_pressure() -> None:
    prefill, decode = sides(make_fleet(), 0.0)
    assert (prefill.name, prefill.ready, prefill.starting, prefill.pressure) == ("prefill", 2, 0, 0.0)
    assert (decode.name, decode.ready, decode.starting, decode.pressure) == ("decode", 2, 0, 0.0)


def test_prompts_press_prefill_and_outputs_press_decode() -> None:
    prompts = make_fleet()
    arrive(prompts, 3, prompt=4_000, output=2)
    prefill, decode = sides(prompts, 0.3)
    assert prefill.pressure > 2 * decode.pressure
    outputs = make_fleet()
    arrive(outputs, 8, prompt=16, output=500)
    prefill, decode = sides(outputs, 0.8)
    assert decode.pressure >= 1.0
    assert decode.pressure > 2 * prefill.pressure


def test_requests_that_found_no_room_to_be_split_press_prefill() -> None:
    """They run whole on the decode side: what was split alone would say that prefill has nothing to do."""
    scheduler = make_fleet(prefills=1, decodes=2)
    put_in_state(scheduler, "p0", InstanceState.SUSPECT, 0.0)
    arrive(scheduler, 4, prompt=2_000, output=50)
    assert scheduler.split_counts().splits == 0
    assert scheduler._registry.pool(MODEL).legs.wanted_share(0.4) == 1.0


def test_requests_that_are_not_to_be_split_are_no_load_of_prefill() -> None:
    scheduler = make_fleet(mode=SplitMode.THRESHOLD)
    arrive(scheduler, 4, prompt=100, output=100)
    prefill, decode = sides(scheduler, 0.4)
    assert prefill.pressure == 0.0
    assert decode.pressure > 0.0


def test_only_ready_instances_carry_and_those_that_start_are_counted_apart() -> None:
    scheduler = make_fleet()
    put_in_state(scheduler, "p1", InstanceState.SUSPECT, 0.0)
    scheduler.register(InstanceSpec(instance_id="d2", model=MODEL, role=DECODING, engine_start_id="1"), 0.0)
    prefill, decode = sides(scheduler, 0.0)
    assert (prefill.ready, prefill.starting, decode.ready, decode.starting) == (1, 0, 2, 1)


def test_an_instance_that_starts_for_too_long_is_no_help_on_its_way() -> None:
    scheduler = make_fleet(prefills=0)
    scheduler.register(InstanceSpec(instance_id="p0", model=MODEL, role=PREFILLING, engine_start_id="1"), 0.0)
    assert not sides(scheduler, LONG_START_S)[0].empty
    assert sides(scheduler, LONG_START_S + 1.0)[0].empty


def test_what_is_too_long_follows_the_starts_that_were_measured() -> None:
    scheduler = make_fleet(prefills=0)
    scheduler.register(InstanceSpec(instance_id="p0", model=MODEL, role=PREFILLING, engine_start_id="1"), 0.0)
    scheduler._registry.pool(MODEL).starts.add(10.0)
    assert not sides(scheduler, LATE * 10.0)[0].empty
    assert sides(scheduler, LATE * 10.0 + 1.0)[0].empty


def test_a_side_for_which_hybrid_instances_stand_in_is_not_empty() -> None:
    scheduler = make_fleet(prefills=0)
    assert sides(scheduler, 0.0)[0].empty
    add_instance(scheduler, "h0", facts=make_facts(kv_connector="c", compatibility_key="k"), role=InstanceRole.HYBRID)
    assert not sides(scheduler, 0.0)[0].empty
    put_in_state(scheduler, "h0", InstanceState.DRAINING, 0.0)
    assert sides(scheduler, 0.0)[0].empty


def test_nothing_is_remembered_of_the_time_before_splitting_was_off() -> None:
    scheduler = make_fleet(prefills=0, roles=RoleSettings(automatic=True, delay_s=10.0))
    assert not scheduler.balance_roles(frozenset(), 0.0)
    scheduler.set_pd(PdSettings(mode=SplitMode.NEVER))
    assert not scheduler.balance_roles(frozenset(), 5.0)
    assert not scheduler.sides
    scheduler.set_pd(PdSettings(mode=SplitMode.ALWAYS))
    assert not scheduler.balance_roles(frozenset(), 15.0)
    assert scheduler.balance_roles(frozenset(), 25.0)


def test_pressures_go_with_their_model() -> None:
    scheduler = make_fleet()
    sides(scheduler, 0.0)
    for each in scheduler.instances():
        put_in_state(scheduler, each.instance_id, InstanceState.LOST, 0.0)
        scheduler.forget(each.instance_id)
    scheduler.balance_roles(frozenset(), 1.0)
    assert not scheduler.sides


def test_a_pressed_side_gets_an_instance() -> None:
    scheduler = make_fleet(prefills=1, decodes=3)
    arrive(scheduler, 4, prompt=8_000, output=2)
    (change,) = scheduler.balance_roles(frozenset(), 0.5)
    assert change.role is PREFILLING
    changed = scheduler.instance(change.instance_id)
    assert (changed.role, changed.role_change) == (PREFILLING, change)
    assert {pair.prefill.instance_id for pair in scheduler.pairs()} == {"p0", change.instance_id}


def test_requests_that_only_one_decode_instance_can_serve_are_served_after_a_change() -> None:
    scheduler = make_scheduler(pd=PdSettings(mode=SplitMode.ALWAYS), roles=QUICK)
    facts = make_facts(kv_connector="c", compatibility_key="k")
    add_instance(scheduler, "d0", facts=replace(facts, adapters=frozenset({"sql"})), role=DECODING)
    for name, role in (("d1", DECODING), ("d2", DECODING), ("p0", PREFILLING)):
        add_instance(scheduler, name, facts=facts, role=role)
    press(scheduler, 0.0, prefill=0.6)
    assert scheduler.balance_roles(frozenset(), 0.0)
    scheduler.enqueue(make_request("r", adapter="sql"), 1.0)
    (decision,) = scheduler.schedule(1.0)
    assert decision.instance_id == "d0"


def test_decisions_say_which_instance_became_what_and_why() -> None:
    scheduler = make_fleet(prefills=1, decodes=2)
    put_in_state(scheduler, "p0", InstanceState.LOST, 0.0)
    (change,) = scheduler.balance_roles(frozenset(), 1.0)
    for pair in scheduler.pairs():
        scheduler.handed_over(pair, 0.01)
    scheduler.enqueue(make_request("r", prompt=100, arrived_at=8.0), 8.0)
    (decision,) = scheduler.schedule(8.0)
    assert decision.prefill is not None
    assert decision.prefill.instance_id == change.instance_id
    assert f"{change.instance_id} became prefilling 7 s ago: {change.reason}" in decision.reasons


def test_decisions_for_whole_requests_say_so_too() -> None:
    scheduler = make_fleet(prefills=2, decodes=1, mode=SplitMode.THRESHOLD)
    put_in_state(scheduler, "d0", InstanceState.LOST, 0.0)
    (change,) = scheduler.balance_roles(frozenset(), 1.0)
    scheduler.enqueue(make_request("r", prompt=100, arrived_at=8.0), 8.0)
    (decision,) = scheduler.schedule(8.0)
    assert (decision.instance_id, decision.prefill) == (change.instance_id, None)
    assert f"{change.instance_id} became decoding 7 s ago: {change.reason}" in decision.reasons


def test_nothing_is_noted_where_roles_are_not_automatic() -> None:
    scheduler = make_fleet(roles=RoleSettings())
    arrive(scheduler, 3, prompt=400, output=2)
    assert scheduler.split_counts().splits == 3
    assert scheduler._registry.pool(MODEL).legs.wanted_share(0.3) == 0.0


def test_recent_legs_are_means_that_fade() -> None:
    legs = RecentLegs()
    assert (legs.wanted_share(0.0), legs.wait_share(0.0), legs.token_share(0.0)) == (0.0, 0.0, 0.0)
    for wait in (0.2, 0.4):
        legs.split(0.0, wait_share=wait, token_share=None)
    legs.whole(0.0, wanted=True)
    legs.whole(0.0, wanted=False)
    assert legs.wanted_share(0.0) == 0.75
    assert legs.wait_share(0.0) == pytest.approx(0.3)
    assert legs.token_share(0.0) == 0.0
    assert legs.wait_share(5 * MEMORY_S) < 0.01
    assert legs.wanted_share(5 * MEMORY_S) == pytest.approx(0.75)
