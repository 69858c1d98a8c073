"""The adaptive policy follows the load and does not flap."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_svc.domain.policies.adaptive import Adaptive, wanted
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import ModelledFleet, add_instance, make_request, make_scheduler

CONFIRM_S, DWELL_S = 1.0, 60.0
QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def signals(**changes: float) -> Signals:
    calm: dict[str, Any] = {
        "load": 0.4,
        "pressure": 0.0,
        "utilisation": 0.3,
        "miss_share": 0.0,
        "targeted_share": 0.0,
        "class_spread": 0.0,
        "background_share": 0.0,
        "price_spread": 0.0,
    }
    return Signals(**calm | changes)


share = st.floats(0, 1)
any_signals = st.builds(
    Signals,
    load=st.floats(0, 2),
    pressure=st.floats(0, 3),
    utilisation=share,
    miss_share=share,
    targeted_share=share,
    class_spread=share,
    background_share=share,
    price_spread=st.floats(0, 2),
)


def follow(load: list[Signals], *, every_s: float = 0.5) -> list[tuple[float, str]]:
    """Switches as time and policy."""
    governor = Adaptive(confirm_s=CONFIRM_S, dwell_s=DWELL_S)
    current, switches = governor.first, []
    for n, s in enumerate(load):
        wish = governor.decide(s, current, n * every_s)
        if wish is not None:
            assert wish.policy != current
            assert wish.reason
            current = wish.policy
            switches.append((n * every_s, current))
    return switches


def test_each_load_has_its_policy() -> None:
    assert wanted(signals(), "fifo").policy == "fifo"
    assert wanted(signals(load=2.0, miss_share=1.0), "fifo").policy == "fifo"
    assert wanted(signals(class_spread=0.5), "fifo").policy == "priority"
    assert wanted(signals(class_spread=0.5, targeted_share=0.5), "fifo").policy == "slo_aware"
    assert wanted(signals(price_spread=1.0, targeted_share=0.5), "fifo").policy == "cost_optimized"
    assert wanted(signals(price_spread=1.0, targeted_share=0.5, load=0.9), "fifo").policy == "slo_aware"
    assert wanted(signals(price_spread=1.0, targeted_share=0.5, miss_share=0.03), "fifo").policy == "slo_aware"


def test_cost_is_left_where_targets_are_missed_or_little_is_spare() -> None:
    assert wanted(signals(price_spread=1.0, load=0.85), "cost_optimized").policy == "cost_optimized"
    assert wanted(signals(price_spread=1.0, load=0.95), "cost_optimized").policy == "fifo"
    assert wanted(signals(price_spread=1.0, miss_share=0.04), "cost_optimized").policy == "cost_optimized"
    assert wanted(signals(price_spread=1.0, miss_share=0.06), "cost_optimized").policy == "fifo"


def test_every_policy_it_wants_is_one_it_says_it_follows() -> None:
    governor = Adaptive(confirm_s=CONFIRM_S, dwell_s=DWELL_S)

    assert {"fifo", "priority", "slo_aware", "cost_optimized"} == set(governor.follows)


@QUICK
@given(st.lists(any_signals, min_size=1, max_size=400))
def test_switches_are_at_least_the_dwell_apart_whatever_the_load_does(load: list[Signals]) -> None:
    times = [at for at, _ in follow(load) if at > 0]

    assert all(later - earlier >= DWELL_S for earlier, later in pairwise(times))


@QUICK
@given(noise=st.lists(st.floats(-0.05, 0.05), min_size=100, max_size=400), level=st.floats(0.6, 0.8))
def test_noise_about_a_threshold_makes_it_switch_once_at_most(level: float, noise: list[float]) -> None:
    load = [signals(load=level + n, price_spread=1.0, targeted_share=1.0) for n in noise]

    assert len([at for at, _ in follow(load) if at > 0]) <= 1


def test_the_first_wish_is_followed_at_once() -> None:
    """What is placed before would use instances that the policy wanted leaves unused."""
    assert follow([signals(price_spread=1.0)] * 3) == [(0.0, "cost_optimized")]


@pytest.mark.parametrize("load", [0.66, 0.85, 0.95])
def test_a_load_that_turns_out_to_be_heavy_is_left_only_where_next_to_nothing_is_spare(load: float) -> None:
    """Otherwise instances would be used for a peak, and paid for from then on."""
    begins = signals(load=0.0, price_spread=1.0, targeted_share=1.0)
    heavy = signals(load=load, price_spread=1.0, targeted_share=1.0)

    switches = follow([begins] + [heavy] * 200)

    assert switches == [(0.0, "cost_optimized"), (1.5, "slo_aware")][: 1 if load < 0.9 else 2]


def test_a_peak_shorter_than_the_confirmation_changes_nothing() -> None:
    busy = signals(targeted_share=0.5)
    load = [signals(), busy, signals()] * 50

    assert follow(load) == []


def test_a_load_that_swings_faster_than_the_dwell_is_followed_at_the_dwell() -> None:
    busy, calm = [signals(targeted_share=0.5)] * 6, [signals()] * 6

    switches = follow((busy + calm) * 60)

    assert len(switches) <= 1 + 360 / DWELL_S


def test_the_lulls_between_bursts_are_no_light_load() -> None:
    burst, lull = signals(load=0.9, price_spread=1.0, targeted_share=1.0), signals(price_spread=1.0, targeted_share=1.0)

    switches = follow(([burst] * 10 + [lull] * 40) * 20 + [lull] * 200)

    assert [policy for _, policy in switches] == ["slo_aware", "cost_optimized"]
    assert switches[1][0] > 500, "after the last burst"


def test_it_follows_a_change_that_lasts() -> None:
    load = [signals()] * 10 + [signals(class_spread=0.5)] * 10

    assert follow(load) == [(6.0, "priority")], "a second after it came"


def one_by_one(scheduler: Scheduler, n: int, *, since: float = 0.0, gap_s: float = 0.5, **request: Any) -> float:
    """Have requests come and end at once; returns when the next one would come."""
    for i in range(n):
        now = since + i * gap_s
        scheduler.enqueue(make_request(f"{now}", arrived_at=now, **request), now)
        for decision in scheduler.schedule(now):
            scheduler.first_token(decision.attempt_number, now)
            scheduler.release(decision.attempt_number, now, output_tokens=None, finished=False)
        scheduler.tick(now)
    return since + n * gap_s


def test_classes_make_the_scheduler_switch_and_say_why() -> None:
    scheduler = make_scheduler("adaptive", instances=1)
    for n in range(20):
        one_by_one(scheduler, 1, since=n * 0.5, priority=Priority(1 + n % 5))

    assert scheduler.policy == "adaptive"
    assert scheduler.delegate == "priority"
    (switch,) = scheduler.switches
    assert (switch.from_policy, switch.to_policy) == ("fifo", "priority")
    assert "outside the commonest class" in switch.reason
    scheduler.enqueue(make_request("late", arrived_at=10.0), 10.0)
    (late,) = scheduler.schedule(10.0)
    assert late.policy == "adaptive"
    assert "adaptive follows priority" in late.reasons


def test_background_requests_make_the_scheduler_look_at_classes_before_another_comes() -> None:
    scheduler = make_scheduler("adaptive", instances=1)
    since = one_by_one(scheduler, 30)
    assert scheduler.delegate == "fifo"

    one_by_one(scheduler, 6, since=since, gap_s=0.5, priority=Priority.BACKGROUND)

    assert scheduler.delegate == "priority"
    assert "are BACKGROUND, for which no other waits" in scheduler.switches[-1].reason


def test_background_requests_that_wait_keep_it_looking_at_classes_whatever_comes() -> None:
    scheduler = make_scheduler("adaptive", instances=1)
    for n in range(60):
        scheduler.enqueue(make_request(f"b{n}", priority=Priority.BACKGROUND), 0.0)
    scheduler.tick(0.0)
    assert scheduler.delegate == "priority"

    for n in range(400):
        now = n * 0.5
        request = make_request(f"n{n}", arrived_at=now)
        scheduler.enqueue(request, now)
        scheduler.tick(now)
        scheduler.withdraw(request.key, now)

    assert scheduler.delegate == "priority", "the oldest in the queue are BACKGROUND"


def test_stated_targets_make_the_scheduler_follow_the_slo() -> None:
    scheduler = make_scheduler("adaptive", instances=1)

    one_by_one(scheduler, 20, ttft_target_s=5.0)

    assert scheduler.delegate == "slo_aware"


@pytest.mark.parametrize("odd", [{"ttft_target_s": 1e-6}, {"priority": Priority.CRITICAL, "deadline_at": 1.0}])
def test_one_odd_request_never_switches(odd: dict[str, Any]) -> None:
    for before in (0, 1, 10, 100):
        scheduler = make_scheduler("adaptive", instances=2)
        now = one_by_one(scheduler, before)
        now = one_by_one(scheduler, 1, since=now, **odd)
        one_by_one(scheduler, 30, since=now)

        assert not scheduler.switches, f"after {before} others"


@pytest.mark.parametrize("policy", ["cost_optimized", "fifo"])
def test_one_miss_does_not_leave_cost(policy: str) -> None:
    scheduler = make_scheduler("adaptive")
    for n in range(3):
        add_instance(scheduler, f"i{n}", price_per_hour=1.0 + n * (policy == "cost_optimized"))

    now = one_by_one(scheduler, 1, ttft_target_s=1e-6)
    one_by_one(scheduler, 30, since=now)

    assert scheduler.delegate == policy


def test_an_idle_fleet_of_differing_prices_is_used_cheaply() -> None:
    scheduler = make_scheduler("adaptive")
    for n in range(3):
        add_instance(scheduler, f"i{n}", price_per_hour=1.0 + n)
    fleet = ModelledFleet(scheduler)
    for n in range(40):
        fleet.arrive(make_request(n, arrived_at=n * 0.5))

    fleet.run()

    assert scheduler.delegate == "cost_optimized"
    assert {d.instance_id for d in fleet.decisions} == {"i0"}, "from the first on"


def test_targets_that_the_fleet_cannot_meet_are_no_reason_to_save() -> None:
    scheduler = make_scheduler("adaptive")
    for n in range(2):
        add_instance(scheduler, f"i{n}", price_per_hour=1.0 + n)

    one_by_one(scheduler, 60, tpot_target_s=1e-4)

    assert scheduler.delegate == "slo_aware"


def test_each_model_follows_its_own_policy() -> None:
    scheduler = make_scheduler("adaptive", instances=1)
    add_instance(scheduler, "other", model="other")
    for n in range(20):
        one_by_one(scheduler, 1, since=n * 0.5, ttft_target_s=5.0)
        one_by_one(scheduler, 1, since=n * 0.5 + 0.1, model="other")

    assert scheduler.delegate == "fifo, slo_aware"
    [switch] = scheduler.switches
    assert "model 'tiny'" in switch.reason
    scheduler.enqueue(make_request("a", arrived_at=20.0, model="other"), 20.0)
    (decision,) = scheduler.schedule(20.0)
    assert "adaptive follows fifo" in decision.reasons
