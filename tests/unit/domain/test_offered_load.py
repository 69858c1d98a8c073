"""How many instances a load takes, by what they do at most and by what they do within TPOT targets."""

from __future__ import annotations

from math import inf

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.offered_load import OfferedLoad
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.pace import Pace
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler

STEP_S = 0.01
PACE = Pace(base_s=STEP_S, prefill_token_s=5e-5, running_s=1e-4, kv_token_s=0.0)
RATE, PROMPT, OUTPUT = 10, 400, 100


def account(*, max_running: int = 100) -> Account:
    account = Account("i0")
    account.open(make_facts(max_running=max_running), PACE, price_per_hour=1.0)
    return account


def taken(tpot_target_s: float, *, max_running: int = 100) -> float:
    """Return how many instances a steady load of a minute takes."""
    load = OfferedLoad()
    for number in range(60 * RATE):
        load.add(PROMPT, OUTPUT, number / RATE, tpot_target_s=tpot_target_s)
    return load.of_instances([account(max_running=max_running)], 60.0)[0]


ADDED = RATE * (PROMPT * PACE.prefill_token_s + OUTPUT * PACE.running_s)  # seconds a second that tokens add to steps
AT_MOST = ADDED + RATE * OUTPUT * STEP_S / 100  # with every slot taken


def test_without_targets_every_slot_counts() -> None:
    assert taken(inf) == pytest.approx(AT_MOST, rel=0.01)


def test_a_tight_target_leaves_less_of_each_second() -> None:
    lone_s = STEP_S + PACE.running_s
    usual_s = lone_s + (0.03 - lone_s) / 1.5  # with half as much company again, 0.03 s

    assert taken(0.03) == pytest.approx(ADDED / (1 - STEP_S / usual_s) ** 1.5, rel=0.01)
    assert taken(0.03) > taken(0.06) > AT_MOST


def test_a_target_that_no_instance_keeps_counts_as_none() -> None:
    assert taken(STEP_S / 2) == pytest.approx(AT_MOST, rel=0.01)


def test_of_few_slots_these_bind() -> None:
    assert taken(10.0, max_running=2) == pytest.approx(taken(inf, max_running=2))


def test_the_tight_targets_of_a_mix_weigh_most() -> None:
    load = OfferedLoad()
    for number in range(60 * RATE):
        load.add(PROMPT, OUTPUT, number / RATE, tpot_target_s=0.03 if number % 2 else 0.3)

    assert load.rates(60.0).tpot_s == pytest.approx(2 / (1 / 0.03 + 1 / 0.3), rel=0.01)


@pytest.mark.parametrize("above", [1.001, 1.01, 1.05])
def test_a_target_that_is_hardly_kept_takes_little_more_than_none(above: float) -> None:
    lone_s = STEP_S + PACE.running_s

    assert taken(lone_s * above) < 2 * AT_MOST


def test_a_target_that_the_fastest_instance_keeps_counts_on_a_mixed_fleet() -> None:
    """By the mean of these paces none would keep it."""
    scheduler = make_scheduler("cost_optimized")
    for number, step_s in enumerate((0.02, 0.06)):
        steps = ((1024, 1), (0, 1), (512, 8), (0, 8))
        measured = tuple(
            IterationSample(
                prefill_tokens=prompts,
                decode_tokens=0 if prompts else running,
                running=running,
                kv_used_tokens=100,
                elapsed_s=step_s + 1e-4 * prompts + 5e-4 * running,
            )
            for prompts, running in steps
        )
        add_instance(scheduler, f"i{number}", facts=make_facts(max_running=64, measured=measured))
    for number in range(10):
        at = 0.2 * number
        scheduler.enqueue(make_request(number, output=200, tpot_target_s=0.03, arrived_at=at), at)

    (pool,) = scheduler._registry.pools()
    assert pool.load.rates(2.0).tpot_s == pytest.approx(0.03)
