"""A request that makes somebody late wherever it goes does so where those who run are late already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.objectives.cheapest import CheapestInTime
from scheduler_svc.domain.objectives.held_back import MOST_LATE_S
from scheduler_svc.domain.objectives.late_everywhere import LateEverywhere
from scheduler_svc.domain.objectives.least_target_used import LeastTargetUsed
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.prediction.pace import Pace
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from tests.contract.policies.modelled_fleet import MODEL
from tests.unit.domain.test_held_back import NOW, TOKEN_S, demand, due_in, instance, send

TARGET_S = 0.05
#: Each sequence adds to a step: 25 of them take a token of 0.045 s, with a fifth as much company again just in time.
PACE = Pace(base_s=TOKEN_S, prefill_token_s=1e-4, running_s=1e-3, kv_token_s=0.0)
FULL = 25


def running(number: int, sequences: int, *, prompts_ahead: bool = False) -> Account:
    account = instance(number, *[TARGET_S] * sequences, pace=PACE)
    if prompts_ahead:
        account.full_prefill_s = 0.5
        account.ready_at = NOW + 0.5
    return account


def wanted(*, waited_s: float = 6.0, ttft_target_s: float = 10.0) -> Demand:
    """Return the demand of a request as tight as those who run, whose patience is over."""
    return demand(ttft_target_s=ttft_target_s, tpot_target_s=TARGET_S, waited_s=waited_s)


def choose(demanded: Demand, offered: Sequence[Account], *, able: Sequence[Account] = ()) -> Choice:
    demanded.able = Accounts(able or offered)
    return LeastTargetUsed(DEFAULT_TARGETS).choose(demanded, Accounts(offered), NOW)


def in_use(each: Sequence[Account]) -> CheapestInTime:
    objective = CheapestInTime(DEFAULT_TARGETS)
    for account in each:
        objective._of(MODEL).take(account, each, NOW, risk=0.0)
    return objective


def test_it_goes_where_those_who_run_are_the_latest() -> None:
    choice = choose(wanted(), [running(0, FULL), running(1, FULL + 10), running(2, FULL)])

    assert (choice.waits, choice.index) == (False, 1)


def test_it_goes_where_nobody_is_late_if_there_is_such_a_place() -> None:
    choice = choose(wanted(), [running(0, FULL), running(1, FULL + 10), running(2, FULL - 5)])

    assert (choice.waits, choice.index) == (False, 2)


def test_it_waits_while_it_is_patient() -> None:
    assert choose(wanted(waited_s=1.0), [running(0, FULL), running(1, FULL + 10), running(2, FULL)]).waits


def test_it_waits_for_the_latest_instance_while_prompts_are_ahead_there() -> None:
    latest = running(1, FULL + 10, prompts_ahead=True)
    offered = [running(0, FULL), running(2, FULL)]

    assert choose(wanted(), offered, able=[offered[0], latest, offered[1]]).waits


def test_it_waits_so_for_a_quarter_of_a_minute_at_most() -> None:
    latest = running(1, FULL + 10, prompts_ahead=True)
    offered = [running(0, FULL), running(2, FULL)]

    assert not choose(wanted(waited_s=MOST_LATE_S), offered, able=[offered[0], latest, offered[1]]).waits


@pytest.mark.parametrize("waited_s", [6.5, 9.0, 11.5])
def test_no_deadline_is_missed_for_that_wait(waited_s: float) -> None:
    latest = running(1, FULL + 10, prompts_ahead=True)
    each = [running(0, FULL), latest, running(2, FULL)]
    demanded = due_in(12.0, waited_s=waited_s, ttft_target_s=10.0, tpot_target_s=TARGET_S)
    demanded.able = Accounts(each)
    offered = Accounts([each[0], each[2]])

    for objective in (LeastTargetUsed(DEFAULT_TARGETS), in_use(each)):
        assert not objective.choose(demanded, offered, NOW).waits


def test_it_does_not_wait_for_an_instance_whose_prompts_are_overdue() -> None:
    stopped = running(1, FULL + 10, prompts_ahead=True)
    stopped.ready_at = NOW - 1.0
    offered = [running(0, FULL), running(2, FULL + 1)]

    choice = choose(wanted(), offered, able=[offered[0], stopped, offered[1]])

    assert (choice.waits, choice.index) == (False, 1)


@pytest.mark.parametrize(("others", "waits"), [(0, True), (10_000, False)])
def test_no_more_wait_than_end_soon(others: int, waits: bool) -> None:
    demanded = wanted(waited_s=1.0)
    demanded.others_wait = others

    assert choose(demanded, [running(0, FULL), running(1, FULL + 10), running(2, FULL)]).waits == waits


def test_where_most_are_far_too_late_requests_are_spread_out_and_nobody_waits() -> None:
    choice = choose(wanted(waited_s=1.0), [running(0, FULL), running(1, FULL + 30), running(2, FULL + 20)])

    assert (choice.waits, choice.index) == (False, 0)


def test_a_target_that_engines_just_reach_alone_is_kept_beside_little_company() -> None:
    tight_s = TOKEN_S + 0.004  # a lone sequence takes 0.021 s
    offered = [instance(number, tight_s, pace=PACE) for number in range(3)]

    assert not choose(demand(ttft_target_s=10.0, tpot_target_s=tight_s), offered).waits


def test_a_long_prompt_counts_for_those_who_run_beside_it() -> None:
    offered = [running(number, FULL - 4) for number in range(3)]
    demanded = wanted(waited_s=1.0)

    assert not choose(demanded, offered).waits
    assert choose(replace(demanded, prompt_tokens=8_000), offered).waits


def test_a_request_that_began_elsewhere_goes_where_it_is_fastest() -> None:
    choice = choose(replace(wanted(), started=True), [running(0, FULL), running(1, FULL + 10), running(2, FULL)])

    assert (choice.waits, choice.index) == (False, 0)


def test_cost_optimized_sends_it_there_as_well() -> None:
    each = [running(0, FULL), running(1, FULL + 10), running(2, FULL)]
    demanded = wanted()
    demanded.able = Accounts(each)

    choice = in_use(each).choose(demanded, Accounts(each), NOW)

    assert (choice.waits, choice.index) == (False, 1)


def test_it_goes_to_an_idle_instance_though_it_is_late_itself() -> None:
    each = [running(0, 0), running(1, FULL), running(2, FULL + 10, prompts_ahead=True)]

    choice = choose(wanted(waited_s=12.0), each[:2], able=each)

    assert (choice.waits, choice.index) == (False, 0)


def test_without_tpot_targets_nobody_is_sent_to_a_crowd() -> None:
    each = [instance(0, *[math.inf] * FULL, pace=PACE), instance(1, pace=PACE)]
    late = demand(ttft_target_s=1.0, waited_s=6.0)
    for objective in (LeastTargetUsed(DEFAULT_TARGETS), in_use(each)):
        late.able = Accounts(each)
        choice = objective.choose(late, Accounts(each), NOW)
        assert (choice.waits, choice.index) == (False, 1)


def test_the_decode_side_is_not_charged_with_a_prompt_that_it_does_not_compute() -> None:
    offered = [running(number, FULL - 4) for number in range(3)]
    demanded = replace(wanted(waited_s=1.0), prompt_tokens=8_000, decode_leg=True)

    assert not choose(demanded, offered).waits


def test_a_prompt_that_a_cache_holds_does_not_make_others_late() -> None:
    offered = [running(number, FULL - 4) for number in range(3)]
    demanded = replace(wanted(waited_s=1.0), prompt_tokens=8_000, cached_tokens={"i1": 7_900})

    choice = choose(demanded, offered)

    assert (choice.waits, choice.index) == (False, 1)


def test_an_engine_that_may_have_stopped_draws_nobody() -> None:
    stopped = running(1, FULL + 10)
    send(Ledger(), stopped, "stuck", TARGET_S, at=NOW - 10.0)
    each = [running(0, FULL), stopped, running(2, FULL + 1)]

    assert LateEverywhere(wanted(), each, each, TARGET_S, NOW).settle(patient=False, ttft_s=10.0) == (2, False)


def test_it_does_not_wait_for_an_instance_that_is_not_offered_for_another_reason() -> None:
    claimed = running(1, FULL + 10)
    offered = [running(0, FULL), running(2, FULL + 1)]

    choice = choose(wanted(), offered, able=[offered[0], claimed, offered[1]])

    assert (choice.waits, choice.index) == (False, 1)


def test_the_caller_s_wish_is_followed() -> None:
    latest = running(1, FULL + 10, prompts_ahead=True)
    offered = [running(0, FULL), running(2, FULL)]
    demanded = wanted()
    demanded.request = replace(demanded.request, preferred_instance="i0")

    assert not choose(demanded, offered, able=[offered[0], latest, offered[1]]).waits


def test_one_that_makes_others_late_only_by_a_margin_goes_where_nobody_is_late_without() -> None:
    """Its own target is looser than theirs: company that may come later counts half of the margin of an engine."""
    each = [instance(0, *[0.035] * 18, pace=PACE), running(1, FULL - 2)]

    choice = choose(demand(ttft_target_s=10.0, tpot_target_s=0.2, waited_s=6.0), each)

    assert (choice.waits, choice.index) == (False, 1)


def test_cost_optimized_sends_nobody_to_a_crowd_where_nobody_is_late_for_it() -> None:
    """Nothing runs; its own target is one that the slow instance never keeps."""
    slow = Pace(base_s=2 * TOKEN_S, prefill_token_s=1e-4, running_s=1e-3, kv_token_s=0.0)
    each = [instance(0, pace=PACE), instance(1, pace=slow)]
    for waited_s in (0.0, 6.0):
        late = demand(ttft_target_s=10.0, tpot_target_s=TOKEN_S, waited_s=waited_s)
        late.able = Accounts(each)
        choice = in_use(each).choose(late, Accounts(each), NOW)
        assert (choice.waits, choice.index) == (False, 0)


def test_it_goes_to_no_crowd_where_only_it_would_be_late() -> None:
    """The prompts ahead there take longer than its TTFT target leaves."""
    crowd = running(1, FULL + 10)
    send(Ledger(), crowd, "long", TARGET_S, at=NOW)
    crowd.pending.busy_until = NOW + 20.0
    crowd._recount()
    each = [running(0, FULL), crowd, running(2, FULL)]
    demanded = wanted()
    demanded.able = Accounts(each)

    for objective in (LeastTargetUsed(DEFAULT_TARGETS), in_use(each)):
        assert objective.choose(demanded, Accounts(each), NOW).index != 1


def test_a_budget_is_kept_to() -> None:
    each = [running(0, FULL), running(1, FULL + 10), running(2, FULL)]
    demanded = wanted()
    demanded.request = replace(demanded.request, cost_budget=1.0)
    demanded.able = Accounts(each)

    assert in_use(each).choose(demanded, Accounts(each), NOW).rule != "most_crowded"
