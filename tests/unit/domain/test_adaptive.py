"""The adaptive policy follows the load and does not flap."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_svc.domain.policies.adaptive import Adaptive, wanted
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.request import Priority
from tests.contract.policies.modelled_fleet import ModelledFleet, add_instance, make_facts, make_request, make_scheduler

CONFIRM_S, DWELL_S = 1.0, 20.0
QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def signals(**changes: float) -> Signals:
    calm: dict[str, Any] = {
        "pressure": 0.0,
        "utilisation": 0.6,
        "miss_share": 0.0,
        "targeted_share": 0.0,
        "class_spread": 0.0,
        "price_spread": 0.0,
    }
    return Signals(**calm | changes)


share = st.floats(0, 1)
any_signals = st.builds(
    Signals,
    pressure=st.floats(0, 3),
    utilisation=share,
    miss_share=share,
    targeted_share=share,
    class_spread=share,
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
    assert wanted(signals(pressure=2.0), "fifo").policy == "fifo"
    assert wanted(signals(pressure=2.0, class_spread=0.5), "fifo").policy == "priority"
    assert wanted(signals(pressure=2.0, class_spread=0.5, targeted_share=0.5), "fifo").policy == "slo_aware"
    assert wanted(signals(targeted_share=0.5), "fifo").policy == "fifo", "all targets are met"
    assert wanted(signals(targeted_share=0.5, miss_share=0.3), "fifo").policy == "slo_aware"
    assert wanted(signals(utilisation=0.1, price_spread=1.0), "fifo").policy == "cost_optimized"
    assert wanted(signals(utilisation=0.9, price_spread=1.0), "fifo").policy == "fifo"


def test_every_policy_it_wants_is_one_it_says_it_follows() -> None:
    governor = Adaptive(confirm_s=CONFIRM_S, dwell_s=DWELL_S)

    assert {"fifo", "priority", "slo_aware", "cost_optimized"} == set(governor.follows)


@QUICK
@given(st.lists(any_signals, min_size=1, max_size=400))
def test_switches_are_at_least_the_dwell_apart_whatever_the_load_does(load: list[Signals]) -> None:
    times = [at for at, _ in follow(load)]

    assert all(later - earlier >= DWELL_S for earlier, later in pairwise(times))


@QUICK
@given(
    level=st.floats(0.3, 0.7),
    noise=st.lists(st.floats(-0.19, 0.19), min_size=100, max_size=400),
    other=st.sampled_from(["class_spread", "targeted_share"]),
)
def test_noise_about_a_threshold_makes_it_switch_once_at_most(level: float, noise: list[float], other: str) -> None:
    load = [signals(pressure=level + n, **{other: 0.5}) for n in noise]

    assert len(follow(load)) <= 1


def test_a_peak_shorter_than_the_confirmation_changes_nothing() -> None:
    busy = signals(pressure=2.0, class_spread=0.5)
    load = [signals(), busy, signals()] * 50

    assert follow(load) == []


def test_a_load_that_swings_faster_than_the_dwell_is_followed_at_the_dwell() -> None:
    busy, calm = [signals(pressure=2.0, class_spread=0.5)] * 6, [signals()] * 6

    switches = follow((busy + calm) * 60)

    assert len(switches) <= 1 + 360 / DWELL_S


def test_it_follows_a_change_that_lasts() -> None:
    load = [signals()] * 10 + [signals(pressure=2.0, class_spread=0.5)] * 10

    assert follow(load) == [(6.0, "priority")], "a second after it came"


def test_a_queue_of_mixed_classes_makes_the_core_switch_and_say_why() -> None:
    scheduler = make_scheduler("adaptive", adaptive_dwell_s=5.0)
    add_instance(scheduler, "i0", facts=make_facts(max_running=2))
    fleet = ModelledFleet(scheduler)
    for n in range(60):
        fleet.arrive(make_request(n, arrived_at=n * 0.05, priority=Priority(1 + n % 5)))

    fleet.run(until=4.0)

    assert scheduler.policy == "adaptive"
    assert scheduler.delegate == "priority"
    (switch,) = scheduler.switches
    assert (switch.from_policy, switch.to_policy) == ("fifo", "priority")
    assert "waiting per slot" in switch.reason
    late = fleet.decisions[-1]
    assert late.policy == "adaptive"
    assert "adaptive follows priority" in late.reasons
    assert late.engine_priority > 0, "as priority has it"


def test_targets_predicted_to_be_missed_make_the_core_follow_the_slo() -> None:
    scheduler = make_scheduler("adaptive")
    add_instance(scheduler, "i0", facts=make_facts(max_running=2))
    fleet = ModelledFleet(scheduler)
    for n in range(60):
        fleet.arrive(make_request(n, arrived_at=n * 0.05, ttft_target_s=0.1))

    fleet.run(until=4.0)

    assert scheduler.delegate == "slo_aware"


def test_an_idle_fleet_of_differing_prices_is_used_cheaply() -> None:
    scheduler = make_scheduler("adaptive")
    for n in range(3):
        add_instance(scheduler, f"i{n}", price_per_hour=1.0 + n)
    fleet = ModelledFleet(scheduler)
    for n in range(40):
        fleet.arrive(make_request(n, arrived_at=n * 0.5))

    fleet.run()

    assert scheduler.delegate == "cost_optimized"
    assert {d.instance_id for d in fleet.decisions[-5:]} == {"i0"}


def test_a_predicted_miss_of_the_time_per_token_counts() -> None:
    scheduler = make_scheduler("adaptive", instances=2)

    for n in range(40):
        now = n * 0.5
        scheduler.enqueue(make_request(n, arrived_at=now, tpot_target_s=1e-4), now)
        for decision in scheduler.schedule(now):
            scheduler.release(decision.attempt_number, now, output_tokens=None, finished=False)
        scheduler.tick(now)

    assert scheduler.delegate == "slo_aware"
