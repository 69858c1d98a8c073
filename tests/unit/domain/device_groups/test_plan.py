"""Engines that share a device take turns, driven by what waits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler_svc.domain.device_groups.member import TAKES_PLACE, Member, MemberState, ModelDemand
from scheduler_svc.domain.device_groups.order import Action, Cause, Order
from scheduler_svc.domain.device_groups.plan import plan
from scheduler_svc.domain.device_groups.settings import DeviceGroupSettings

S = MemberState
SETTINGS = DeviceGroupSettings(min_awake_s=5.0, turn_factor=4.0, drain_limit_s=60.0)
A = Member(instance_id="a", model="A", state=S.AWAKE, sleep_s=1.0, wake_s=2.0)
B = Member(instance_id="b", model="B", state=S.ASLEEP, sleep_s=1.0, wake_s=2.0)
ONE_WAITS = {"B": ModelDemand(waiting=1, waited_s=3.0)}
BOTH_WAIT = {**ONE_WAITS, "A": ModelDemand(waiting=5, waited_s=9.0)}


def actions(orders: list[Order]) -> list[tuple[str, Action, Cause]]:
    return [(each.instance_id, each.action, each.cause) for each in orders]


def test_a_sleeping_model_that_requests_wait_for_wakes_into_a_free_place() -> None:
    orders = plan([replace(A, state=S.ASLEEP), B], ONE_WAITS, SETTINGS, 100.0)
    assert actions(orders) == [("b", Action.WAKE, Cause.WAITING)]
    assert orders[0].reason == "1 requests for B wait, the first for 3.0 s"


def test_one_that_is_missed_is_wanted_though_its_model_is_served() -> None:
    served = {"B": ModelDemand(waiting=7, waited_s=50.0, awake_elsewhere=True)}
    assert plan([A, B], served, SETTINGS, 100.0) == []
    missed = replace(B, missed=ModelDemand(waiting=2, waited_s=3.0))
    assert actions(plan([A, missed], served, SETTINGS, 100.0)) == [("a", Action.DRAIN, Cause.PEER_WANTED)]
    (order,) = plan([replace(A, state=S.ASLEEP), missed], served, SETTINGS, 100.0)
    assert order.reason == "2 requests for B wait and no instance that is ready can serve them, the first for 3.0 s"


def test_nothing_happens_while_nobody_waits() -> None:
    assert plan([A, B], {}, SETTINGS, 100.0) == []
    assert plan([replace(A, state=S.ASLEEP), B], {}, SETTINGS, 100.0) == []


def test_one_that_has_nothing_to_do_yields_once_it_was_awake_for_the_least_time() -> None:
    assert plan([A, B], ONE_WAITS, SETTINGS, 4.9) == []
    assert actions(plan([A, B], ONE_WAITS, SETTINGS, 5.0)) == [("a", Action.DRAIN, Cause.PEER_WANTED)]


@pytest.mark.parametrize(("running", "demands"), [(3, ONE_WAITS), (0, BOTH_WAIT)])
def test_one_with_work_yields_when_its_turn_is_over(running: int, demands: dict[str, ModelDemand]) -> None:
    """The exchange takes 1 s + 2 s, so a turn lasts 12 s."""
    busy = replace(A, running=running)
    assert plan([busy, B], demands, SETTINGS, 11.9) == []
    assert actions(plan([busy, B], demands, SETTINGS, 12.0)) == [("a", Action.DRAIN, Cause.TURN_OVER)]


def test_the_other_one_wakes_only_when_the_place_is_free() -> None:
    draining = replace(A, state=S.DRAINING, since=100.0, running=1)
    assert plan([draining, B], ONE_WAITS, SETTINGS, 101.0) == [], "never under running requests"
    assert plan([replace(draining, running=0), B], ONE_WAITS, SETTINGS, 200.0) == [], "it sleeps by itself"
    assert plan([replace(A, state=S.FALLING_ASLEEP), B], ONE_WAITS, SETTINGS, 102.0) == []
    assert actions(plan([replace(A, state=S.ASLEEP), B], ONE_WAITS, SETTINGS, 103.0)) == [
        ("b", Action.WAKE, Cause.WAITING)
    ]


def test_what_does_not_end_in_the_drain_s_time_is_given_back() -> None:
    draining = replace(A, state=S.DRAINING, since=100.0, running=2)
    assert plan([draining, B], ONE_WAITS, SETTINGS, 159.9) == []
    orders = plan([draining, B], ONE_WAITS, SETTINGS, 160.0)
    assert actions(orders) == [("a", Action.GIVE_BACK, Cause.DRAIN_LIMIT)]


def test_a_drain_is_lifted_when_the_other_one_is_not_wanted_any_more() -> None:
    draining = replace(A, state=S.DRAINING, since=100.0, running=1)
    assert actions(plan([draining, B], {}, SETTINGS, 101.0)) == [("a", Action.RESUME, Cause.PEER_NOT_WANTED)]
    served = {"B": ModelDemand(waiting=1, awake_elsewhere=True)}
    assert actions(plan([draining, B], served, SETTINGS, 101.0)) == [("a", Action.RESUME, Cause.PEER_NOT_WANTED)]


def test_a_drain_that_an_operator_wants_is_not_lifted_and_has_its_limit() -> None:
    ordered = replace(A, state=S.DRAINING, since=100.0, running=1, ordered=True)
    assert plan([ordered, B], {}, SETTINGS, 200.0) == []
    assert actions(plan([ordered, B], ONE_WAITS, SETTINGS, 160.0)) == [("a", Action.GIVE_BACK, Cause.DRAIN_LIMIT)]
    other = replace(ordered, instance_id="a2", since=90.0, ordered=False)
    assert actions(plan([ordered, other, B], ONE_WAITS, SETTINGS, 110.0, places=2)) == [
        ("a2", Action.RESUME, Cause.PEER_NOT_WANTED)
    ], "the one that leaves in any case makes room"


def test_a_model_that_is_served_takes_no_place_from_another_one() -> None:
    served = {"B": ModelDemand(waiting=9, waited_s=30.0, awake_elsewhere=True)}
    assert plan([A, B], served, SETTINGS, 100.0) == []
    second = replace(A, instance_id="a2", state=S.ASLEEP)
    assert plan([A, second], {"A": ModelDemand(waiting=9, waited_s=30.0)}, SETTINGS, 100.0) == []


def test_the_model_whose_request_waits_longest_is_next_with_one_instance() -> None:
    c = replace(B, instance_id="c", model="C")
    second = replace(c, instance_id="c2")
    demands = {**ONE_WAITS, "C": ModelDemand(waiting=1, waited_s=8.0)}
    idle = replace(A, state=S.ASLEEP)
    assert actions(plan([idle, B, second, c], demands, SETTINGS, 9.0)) == [("c", Action.WAKE, Cause.WAITING)]
    woken = plan([idle, B, second, c], demands, SETTINGS, 9.0, places=2)
    assert [each.instance_id for each in woken] == ["c", "b"], "two instances of one model take no two places"


def test_an_instance_that_takes_nothing_does_not_serve_its_model() -> None:
    cordoned = replace(A, held=True)
    second = replace(A, instance_id="a2", state=S.ASLEEP)
    orders = plan([cordoned, second], {"A": ModelDemand(waiting=9, waited_s=30.0)}, SETTINGS, 100.0)
    assert actions(orders) == [("a", Action.DRAIN, Cause.PEER_WANTED)], "an awake one would have to make room"


def test_the_age_of_a_backlog_gives_a_model_no_second_turn_before_another_one_s_first() -> None:
    """Requests for A and B wait for minutes, one for C for 13 s; A's turn ended 12 s ago, B's ends now."""
    asleep = replace(A, state=S.ASLEEP, since=88.0)
    c = replace(B, instance_id="c", model="C", since=0.0)
    demands = {
        "A": ModelDemand(waiting=900, waited_s=400.0),
        "B": ModelDemand(waiting=900, waited_s=400.0),
        "C": ModelDemand(waiting=1, waited_s=13.0),
    }
    leaves = replace(B, state=S.ASLEEP, since=100.0)
    assert actions(plan([asleep, leaves, c], demands, SETTINGS, 100.0)) == [("c", Action.WAKE, Cause.WAITING)]


def test_engines_start_one_after_the_other() -> None:
    new_a, new_b = (replace(each, state=S.NOT_STARTED, first_start=True) for each in (A, B))
    assert plan([new_a, new_b], {}, SETTINGS, 0.0) == [], "the first takes the free place by itself"
    assert plan([replace(A, state=S.STARTING), new_b], {}, SETTINGS, 3.0) == []
    up = replace(A, since=10.0)
    assert plan([up, new_b], {}, SETTINGS, 14.0) == []
    assert actions(plan([up, new_b], {}, SETTINGS, 15.0)) == [("a", Action.DRAIN, Cause.PEER_WANTED)]


def test_one_that_starts_again_takes_a_place_from_another_only_when_requests_wait_for_it() -> None:
    again = replace(B, state=S.NOT_STARTED)
    assert plan([A, again], {}, SETTINGS, 100.0) == []
    assert actions(plan([A, again], ONE_WAITS, SETTINGS, 100.0)) == [("a", Action.DRAIN, Cause.PEER_WANTED)]


def test_one_that_an_operator_wakes_gets_a_place_though_nobody_waits_for_it() -> None:
    woken = replace(B, state=S.WOKEN)
    assert actions(plan([A, woken], {}, SETTINGS, 100.0)) == [("a", Action.DRAIN, Cause.PEER_WANTED)]
    assert plan([replace(A, state=S.ASLEEP), woken], {}, SETTINGS, 100.0) == [], "it takes the place by itself"


def test_one_that_an_operator_drained_and_one_that_cannot_sleep_stay_as_they_are() -> None:
    assert plan([replace(A, state=S.ASLEEP), replace(B, held=True)], ONE_WAITS, SETTINGS, 100.0) == []
    assert plan([replace(A, pinned=True), B], ONE_WAITS, SETTINGS, 100.0) == []


def test_the_place_of_one_that_died_while_it_woke_goes_to_the_next() -> None:
    assert plan([replace(A, state=S.WAKING), B], BOTH_WAIT, SETTINGS, 100.0) == []
    orders = plan([B], BOTH_WAIT, SETTINGS, 100.0)
    assert actions(orders) == [("b", Action.WAKE, Cause.WAITING)]


def test_two_busy_models_take_turns_and_lose_a_fifth_of_the_time_to_exchanges() -> None:
    """Both always have work; a member falls asleep in 1 s and wakes in 2 s, its requests end within the drain."""
    members = {"a": A, "b": B}
    served = dict.fromkeys(members, 0.0)
    for tick in range(6_000):
        now = tick / 10
        members = {key: _after(each, now) for key, each in members.items()}
        assert sum(each.takes_place for each in members.values()) <= 1
        for key, each in members.items():
            served[key] += 0.1 * (each.state is S.AWAKE)
        waiting = {each.model: ModelDemand(waiting=1, waited_s=now - each.since) for each in members.values()}
        for order in plan(list(members.values()), waiting, SETTINGS, now):
            members[order.instance_id] = _carried_out(members[order.instance_id], order, now)
    assert served["a"] == pytest.approx(served["b"], rel=0.05)
    assert sum(served.values()) / 600 == pytest.approx(0.8, abs=0.03)


_NEXT = {Action.WAKE: S.WAKING, Action.DRAIN: S.FALLING_ASLEEP, Action.RESUME: S.AWAKE}


def _carried_out(member: Member, order: Order, now: float) -> Member:
    """Give an order; nothing runs there, so a drain is over at once."""
    return replace(member, state=_NEXT[order.action], since=now)


def _after(member: Member, now: float) -> Member:
    if member.state is S.WAKING and now - member.since >= member.wake_s:
        return replace(member, state=S.AWAKE, since=now)
    if member.state is S.FALLING_ASLEEP and now - member.since >= member.sleep_s:
        return replace(member, state=S.ASLEEP, since=now)
    return member


@pytest.mark.parametrize(("key", "value"), [("min_awake_s", -1.0), ("drain_limit_s", float("nan"))])
def test_settings_that_make_no_sense_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        DeviceGroupSettings(**{key: value})


def test_states_that_take_a_place() -> None:
    assert {S.STARTING, S.AWAKE, S.DRAINING, S.FALLING_ASLEEP, S.WAKING} == TAKES_PLACE
