"""A request that can wait is held back rather than make those late who run already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.objectives.cheapest import CheapestInTime
from scheduler_svc.domain.objectives.held_back import MOST_S, PATIENCE
from scheduler_svc.domain.objectives.least_target_used import LeastTargetUsed
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.prediction.margin import BORROWED_MARGINS, PRIOR_MARGINS, Margins
from scheduler_svc.domain.prediction.pace import Pace
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from tests.contract.policies.modelled_fleet import MODEL, make_facts, make_request

NOW = 1_000.0
TOKEN_S = 0.02  # of a step without prompt tokens, on an engine of speed 1
PACE = Pace(base_s=TOKEN_S, prefill_token_s=1e-4, running_s=0.0, kv_token_s=0.0)
CHUNK = 1_000  # so that a step full of prompt tokens takes 0.12 s
MARGIN = 2.0  # so that half of it makes 0.03 s of a token's 0.02 s


def instance(number: int, *tpot_targets_s: float, pace: Pace = PACE, margin: float = MARGIN) -> Account:
    """Make an instance on which requests with these targets run, their prompts computed."""
    ledger, account = Ledger(), Account(f"i{number}")
    facts = make_facts(max_running=64, max_batched_tokens=CHUNK, kv_capacity_tokens=200_000)
    margins = Margins(first_token=1.0, token=margin)
    account.open(facts, pace, price_per_hour=1.0, uncached_share=1.0, margins=margins)
    for name, tpot_s in enumerate(tpot_targets_s):
        ledger.first_token(send(ledger, account, f"r{name}", tpot_s, at=0.0), 0.0)
    return account


def send(ledger: Ledger, account: Account, name: str, tpot_s: float, *, at: float) -> Reservation:
    """Send a request with this TPOT target to an instance; its prompt is not computed yet."""
    reservation = Reservation(
        key=RequestKey(tenant="t", request_id=name),
        instance_id=account.instance_id,
        tokens=64,
        prompt_tokens=32,
        output_tokens=32,
        emitted_tokens=0,
        max_tokens=32,
        critical=False,
        made_at=at,
        first_token_in_s=0.1,
        token_s=TOKEN_S,
        finish_in_s=1.0,
        tpot_target_s=tpot_s,
    )
    ledger.enter(account, reservation, at)
    return reservation


SLOW = Pace(base_s=1.0, prefill_token_s=1e-2, running_s=0.0, kv_token_s=0.0)


def demand(*, waited_s: float = 0.0, **targets: Any) -> Demand:
    request = make_request("next", priority=Priority.LOW, arrived_at=NOW - waited_s, **targets)
    return Demand(
        request=request,
        prompt_tokens=32,
        output_tokens=32,
        tokens=64,
        total_tokens=64,
        started=False,
        must_leave_reserve=False,
        cache_known=True,
    )


def due_in(seconds: float, *, waited_s: float = 0.0, output_tokens: int = 32, **targets: Any) -> Demand:
    """Return the demand of a request that states a deadline so many seconds after its arrival."""
    wanted = demand(waited_s=waited_s, deadline_at=NOW - waited_s + seconds, deadline_stated=True, **targets)
    return replace(wanted, output_tokens=output_tokens)


def choose(wanted: Demand, accounts: Sequence[Account]) -> Choice:
    return LeastTargetUsed(DEFAULT_TARGETS).choose(wanted, Accounts(accounts), NOW)


def test_it_waits_where_those_who_run_would_be_late() -> None:
    choice = choose(demand(ttft_target_s=10.0), [instance(0, 0.025), instance(1, 0.5, 0.025)])

    assert choice.waits
    assert choice.rule == "waits_for_others"


@pytest.mark.parametrize("share", [1.0, 1.5])
def test_it_goes_once_its_patience_is_over(share: float) -> None:
    waited_s = share * PATIENCE * 10.0

    assert not choose(demand(ttft_target_s=10.0, waited_s=waited_s), [instance(0, 0.025)]).waits


def test_it_waits_for_a_minute_at_most_whatever_its_target() -> None:
    accounts = [instance(0, 0.025)]

    assert choose(demand(ttft_target_s=86_400.0, waited_s=MOST_S - 1), accounts).waits
    assert not choose(demand(ttft_target_s=86_400.0, waited_s=MOST_S), accounts).waits


def test_a_request_that_began_elsewhere_does_not_wait() -> None:
    assert not choose(replace(demand(ttft_target_s=10.0), started=True), [instance(0, 0.025)]).waits


@pytest.mark.parametrize("tpot_targets_s", [(), (0.031,), (0.5, 0.1)])
def test_it_goes_where_nobody_is_late_for_it(tpot_targets_s: tuple[float, ...]) -> None:
    choice = choose(demand(ttft_target_s=10.0), [instance(0, 0.025), instance(1, *tpot_targets_s)])

    assert not choice.waits
    assert choice.index == 1


def test_it_does_not_go_where_it_would_be_late_itself() -> None:
    assert choose(demand(ttft_target_s=10.0, tpot_target_s=0.1), [instance(0, 0.025), instance(1, pace=SLOW)]).waits


def test_no_token_takes_longer_than_a_step_full_of_prompt_tokens() -> None:
    quick = Pace(base_s=TOKEN_S, prefill_token_s=1e-6, running_s=0.0, kv_token_s=0.0)  # a full step takes 0.021 s

    assert not choose(demand(ttft_target_s=10.0), [instance(0, 0.025, pace=quick)]).waits


def test_who_runs_where_the_engine_cannot_meet_its_target_holds_nobody_back() -> None:
    assert not choose(demand(ttft_target_s=10.0), [instance(0, TOKEN_S / 2)]).waits


@pytest.mark.parametrize("late", [False, True])
def test_the_only_instance_is_judged_alike(late: bool) -> None:
    account = instance(0, 0.025 if late else 0.5)

    assert LeastTargetUsed(DEFAULT_TARGETS).choose_only(demand(ttft_target_s=10.0), account, NOW).waits == late


@pytest.mark.parametrize("ttft_target_s", [None, 60.0])
@pytest.mark.parametrize(("waited_s", "waits"), [(0.0, True), (0.9, True), (1.0, False), (1.9, False)])
def test_a_deadline_is_waited_for_half_of_it_at_most(waited_s: float, waits: bool, ttft_target_s: float | None) -> None:
    wanted, account = due_in(2.0, waited_s=waited_s, ttft_target_s=ttft_target_s), instance(0, 0.025)

    assert choose(wanted, [account]).waits == waits
    assert LeastTargetUsed(DEFAULT_TARGETS).choose_only(wanted, account, NOW).waits == waits


@pytest.mark.parametrize(("output_tokens", "waits"), [(70, True), (90, False)])
def test_an_output_that_takes_most_of_what_the_deadline_leaves_goes_at_once(output_tokens: int, waits: bool) -> None:
    wanted, account = due_in(2.0, output_tokens=output_tokens), instance(0, 0.025)  # 0.02 s per token

    assert choose(wanted, [account]).waits == waits
    assert LeastTargetUsed(DEFAULT_TARGETS).choose_only(wanted, account, NOW).waits == waits


@pytest.mark.parametrize(("prompt_tokens", "waits"), [(32, True), (4_600, False), (6_000, False)])
def test_a_prompt_that_takes_most_of_what_is_left_goes_at_once(prompt_tokens: int, waits: bool) -> None:
    wanted = replace(demand(ttft_target_s=1.0, waited_s=0.4), prompt_tokens=prompt_tokens)  # 0.1 s per 1,000
    account = instance(0, 0.025)

    assert choose(wanted, [account]).waits == waits
    assert LeastTargetUsed(DEFAULT_TARGETS).choose_only(wanted, account, NOW).waits == waits


def test_one_whose_own_target_no_instance_can_meet_does_not_wait_beside_an_idle_one() -> None:
    assert not choose(demand(ttft_target_s=10.0, tpot_target_s=0.015), [instance(0, 0.025), instance(1)]).waits


def test_a_prompt_that_a_cache_holds_goes_where_nobody_is_late_for_it() -> None:
    wanted = replace(demand(ttft_target_s=10.0), cached_tokens={"i0": 16})

    assert choose(wanted, [instance(0, 0.025), instance(1)]).index == 1
    assert choose(wanted, [instance(0, 0.025), instance(1, 0.025)]).waits
    assert choose(wanted, [instance(0), instance(1, 0.025)]).index == 0


def test_a_cache_decides_where_nobody_is_late_only_where_the_request_would_be() -> None:
    wanted = replace(demand(ttft_target_s=10.0, tpot_target_s=0.1, waited_s=6.0), cached_tokens={"i0": 16})

    assert choose(wanted, [instance(0, 0.025), instance(1, pace=SLOW)]).index == 0


@pytest.mark.parametrize(("tpot_s", "waits"), [(0.034, True), (0.036, False)])
def test_a_borrowed_margin_holds_back_no_more_than_that_of_an_engine_of_which_nothing_is_known(
    tpot_s: float, waits: bool
) -> None:
    for margin in (BORROWED_MARGINS.token, PRIOR_MARGINS.token):
        account = instance(0, tpot_s, margin=margin)
        assert choose(demand(ttft_target_s=10.0), [account]).waits == waits
        assert LeastTargetUsed(DEFAULT_TARGETS).choose_only(demand(ttft_target_s=10.0), account, NOW).waits == waits


def test_cost_optimized_goes_where_nobody_is_late_though_another_scores_as_good_as_equal() -> None:
    full, roomy = instance(0, TOKEN_S / 0.82), instance(1, TOKEN_S / 0.78)  # the first has the first turn
    objective = CheapestInTime(DEFAULT_TARGETS)
    for each in (full, roomy):  # takes both into use
        objective._of(MODEL).take(each, (full, roomy), NOW, risk=0.0)

    choice = objective.choose(demand(ttft_target_s=10.0), Accounts([full, roomy]), NOW)

    assert (choice.waits, choice.index) == (False, 1)
