"""Verdicts on claims."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.policies.cell import Cell
from tests.bench.policies.claims import Verdict, judge, largest_step_s
from tests.bench.policies.figures import Figures
from tests.bench.policies.readings import Readings
from tests.unit.bench.policies.made_up import E8, LOADS, U8, by_goodput, figures, filled, readings


def verdicts(run: Readings) -> dict[str, Verdict]:
    return {each.claim + (f" {each.note}" if "load" in each.note else ""): each for each in judge(run)}


def test_goodput_claims_compare_on_the_same_seeds() -> None:
    run = filled(U8, by_goodput(slo_aware=1.3, least_requests=0.8, oracle=1.4), seeds=3)
    found = verdicts(run)

    least = found["slo_aware: least outstanding"]
    assert least.value.mean == pytest.approx(1.3 / 0.8)
    assert least.value.half_width == pytest.approx(0.0, abs=1e-9)
    assert least.words == "met"
    assert found["slo_aware: nowhere below fifo"].words == "met"
    share = found["slo_aware: share of the oracle"]
    assert share.value.mean == pytest.approx(1.3 / 1.4)
    assert share.words == "told"
    assert found["adaptive: best fixed policy"].words == "missed by 20.7%"
    assert found["adaptive: best fixed policy"].note == "goodput by slo_aware's"


def test_bursty_traffic_asks_for_more() -> None:
    assert verdicts(filled(E8, by_goodput(slo_aware=1.2)))["slo_aware: best router"].words == "missed by 14.3%"


def test_cost_is_compared_at_the_economical_load_among_those_in_time() -> None:
    costs = {"fifo": 1.0, "priority": 0.9, "slo_aware": 0.5, "cost_optimized": 0.7, "adaptive": 0.72}

    def made(policy: str, load: float, seed: int) -> Figures:
        return figures(0.98 if policy == "slo_aware" else 1.0, cost_per_million_tokens=costs.get(policy, 1.0))

    found = verdicts(filled(U8, made))

    assert found["cost_optimized: cost per token by fifo's, load 0.6"].value.mean == pytest.approx(0.7)
    assert found["cost_optimized: cost per token by fifo's, load 0.6"].words == "met"
    adaptive = found["adaptive: cost per token by cost_optimized's, load 0.6"]
    assert adaptive.value.mean == pytest.approx(0.72 / 0.7)
    assert adaptive.words == "met"


def test_critical_requests_may_wait_for_one_step_more_than_on_an_idle_fleet() -> None:
    step_s = largest_step_s(E8)
    assert step_s == pytest.approx(7e-3 + 2_048 * 4e-5 + 128 * 4e-5 + 320_000 * 1.2e-8)

    def made(policy: str, load: float, seed: int) -> Figures:
        return figures(critical_ttft_p99_s=0.1 + {0.05: 0.0, 0.9: step_s * 0.9, 1.2: step_s * 1.1}.get(load, 0.0))

    found = verdicts(filled(E8, made))

    assert found["priority: CRITICAL p99 TTFT s, load 0.9"].words == "met"
    assert found["priority: CRITICAL p99 TTFT s, load 1.2"].words.startswith("missed by ")


def test_classes_with_equal_targets_are_served_alike_by_slo_aware_and_not_by_priority() -> None:
    group = replace(E8, traffic="steady_chat", targets="equal")

    spread = {
        policy: Cell(group=group, policy=policy, load=1.2, seed=1, duration_s=20.0).run().class_in_target_spread
        for policy in ("slo_aware", "priority")
    }

    assert spread["slo_aware"] < 0.1 < 0.5 < spread["priority"]


def test_a_class_that_is_served_worse_by_slo_aware_misses_the_claim() -> None:
    group = replace(E8, targets="equal")

    def of(spread: float) -> list[Verdict]:
        found = judge(filled(group, lambda *_: figures(class_in_target_spread=spread)))
        return [each for each in found if each.claim == "slo_aware: equal targets"]

    assert [each.words for each in of(0.05)] == ["met", "met"]
    assert all(each.words.startswith("missed") for each in of(0.95))


def test_one_overtaken_request_is_one_too_many_on_an_equal_fleet() -> None:
    found = verdicts(filled(E8, lambda policy, load, seed: figures(overtaken=int(load > 1))))

    assert found["fifo: nothing overtakes share of requests, load 0.9"].words == "met"
    assert found["fifo: nothing overtakes share of requests, load 1.2"].words != "met"


def test_adaptive_splitting_is_compared_with_always_and_never() -> None:
    group = replace(E8, fleet="PD")
    run = readings(group, policies=("slo_aware", "slo_aware/split_always", "slo_aware/split_never"))
    for policy, most in zip(run.policies, (1.0, 1.2, 0.8), strict=True):
        for load in LOADS:
            run.results.add({run.cell(group, policy, load, 1).key: figures(1.0 - 0.1 * load / most)})

    found = [(each.note, each.words) for each in judge(run) if each.claim.startswith("splitting")]

    assert found == [
        ("goodput by slo_aware/split_always's", "missed by 14.1%"),
        ("goodput by slo_aware/split_never's", "met"),
    ]


def test_following_prefixes_is_compared_with_not_following_them() -> None:
    group = replace(E8, traffic="mooncake")
    run = readings(group, policies=("slo_aware", "slo_aware/prefix_blind"))
    for policy, most in (("slo_aware", 1.2), ("slo_aware/prefix_blind", 1.0)):
        for load in (*LOADS, 0.9):
            share = 1.0 - 0.1 * load / most
            run.results.add({run.cell(group, policy, load, 1).key: figures(share, busy_imbalance=1.6)})

    found = verdicts(run)

    assert found["prefixes: goodput"].words == "met"
    assert found["prefixes: goodput"].value.mean == pytest.approx(1.2)
    assert found["prefixes: in target more in target, load 0.9"].value.mean == pytest.approx(0.015)
    assert found["prefixes: balance most busy by the mean, load 0.9"].words == "missed by 6.7%"


def test_a_claim_without_its_cells_is_left_out() -> None:
    assert judge(readings()) == []
