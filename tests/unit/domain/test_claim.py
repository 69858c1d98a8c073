"""A head that fits nowhere claims an instance; others go ahead there only if they do not delay it."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.claim import Claim, best_claim
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.load_report import LoadReport
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler

CAPACITY = 1_024


def make_account(*ends: tuple[int, float], name: str = "i0", **facts: Any) -> Account:
    """Runs one request per pair of tokens and predicted end."""
    scheduler = make_scheduler()
    add_instance(scheduler, name, facts=make_facts(kv_capacity_tokens=CAPACITY, max_model_len=CAPACITY, **facts))
    account = scheduler.instance(name).account
    for n, (tokens, _) in enumerate(ends):
        scheduler.enqueue(make_request(n, prompt=tokens - 10, output=10), 0.0)
    assert len(scheduler.schedule(0.0)) == len(ends)
    for reservation, (_, end) in zip(account.reservations.values(), ends, strict=True):
        reservation.finish_at = end
    account.finishes = sorted(end for _, end in ends)
    return account


def make_demand(tokens: int, *, must_leave_reserve: bool = False) -> Demand:
    return Demand(
        request=make_request("asks", prompt=tokens - 10, output=10),
        prompt_tokens=tokens - 10,
        output_tokens=10,
        tokens=tokens,
        total_tokens=tokens,
        started=False,
        must_leave_reserve=must_leave_reserve,
    )


def claim_on(account: Account, demand: Demand, *, backfills: int = 16) -> Claim:
    claim = Claim(account, backfills=backfills)
    claim.look_ahead(demand, 1.0)
    return claim


def test_the_claimant_is_predicted_to_fit_when_enough_has_ended() -> None:
    account = make_account((320, 9.0), (320, 5.0), (320, 7.0))

    assert claim_on(account, make_demand(64)).fits_at == 1.0
    assert claim_on(account, make_demand(384)).fits_at == 5.0
    assert claim_on(account, make_demand(704)).fits_at == 7.0
    assert claim_on(account, make_demand(1_024)).fits_at == 9.0


def test_what_is_overdue_is_taken_to_end_now() -> None:
    assert claim_on(make_account((960, 0.5)), make_demand(512)).fits_at == 1.0


def test_the_claimant_needs_a_slot_too() -> None:
    account = make_account((16, 5.0), (16, 7.0), max_running=1)

    assert account.free_slots == -1
    assert claim_on(account, make_demand(64)).fits_at == 5.0, "then it may queue at the engine, alone"


def test_a_claimant_that_must_leave_a_slot_for_critical_waits_for_another_to_end() -> None:
    account = make_account((16, 5.0), (16, 7.0), max_running=2)

    assert claim_on(account, make_demand(64, must_leave_reserve=True)).fits_at == 7.0


def test_where_the_engine_uses_more_than_we_know_of_no_time_is_predicted() -> None:
    account = make_account((320, 5.0))
    account.report(
        LoadReport(number=1, last_assign=0, running=1, waiting=0, unfinished=1, kv_used_tokens=CAPACITY, iterations=1),
        0.0,
    )

    claim = claim_on(account, make_demand(1_024))

    assert claim.fits_at == inf
    assert not claim.allows(make_demand(16), 0.0, 1.0)


def test_what_fits_beside_the_claimant_may_go_ahead_until_the_room_is_used_up() -> None:
    account = make_account((640, 5.0))
    claim = claim_on(account, make_demand(640))
    small = make_demand(192)

    assert claim.allows(small, finish_in_s=100.0, now=1.0)
    claim.take(small)
    assert claim.allows(small, finish_in_s=100.0, now=1.0)
    claim.take(small)
    assert not claim.allows(small, finish_in_s=100.0, now=1.0)


def test_what_is_over_in_time_may_go_ahead_but_only_so_often() -> None:
    """Predictions err: with no end to them the claimant would wait for ever."""
    claim = claim_on(make_account((640, 5.0)), make_demand(1_024), backfills=2)
    quick = make_demand(256)

    assert not claim.allows(quick, finish_in_s=4.1, now=1.0)
    for _ in range(2):
        assert claim.allows(quick, finish_in_s=3.9, now=1.0)
        claim.take(quick)
    assert not claim.allows(quick, finish_in_s=3.9, now=1.0)


def test_the_instance_where_it_fits_first_is_claimed() -> None:
    accounts = [make_account((960, end), name=f"i{n}") for n, end in enumerate((9.0, 3.0, 6.0))]

    claim = best_claim(make_demand(512), accounts, 1.0, backfills=1)

    assert claim is not None
    assert claim.account.instance_id == "i1"


def test_nothing_is_claimed_where_it_can_never_fit() -> None:
    assert best_claim(make_demand(2_048), [make_account()], 1.0, backfills=1) is None


@pytest.mark.parametrize("earlier_elsewhere", [True, False])
def test_a_claim_is_kept_while_its_claimant_is_the_head(earlier_elsewhere: bool) -> None:
    scheduler = make_scheduler()
    for n in range(2):
        add_instance(scheduler, f"i{n}", facts=make_facts(kv_capacity_tokens=CAPACITY, max_model_len=CAPACITY))
        scheduler.enqueue(make_request(f"runs{n}", prompt=700, output=100 + n), 0.0)
    scheduler.enqueue(make_request("head", prompt=900, output=100), 0.0)
    scheduler.enqueue(make_request("next", prompt=900, output=100), 0.0)
    scheduler.schedule(0.0)
    pool = scheduler._registry.pool("tiny")
    claim = pool.claim
    assert claim is not None
    assert claim.account.instance_id == "i0"

    if earlier_elsewhere:
        for reservation in scheduler.instance("i1").account.reservations.values():
            reservation.finish_at = 0.01
    pool.changed = True
    scheduler.schedule(0.1)

    assert pool.claim is claim


def test_a_claim_moves_on_when_its_instance_becomes_quiet() -> None:
    scheduler = make_scheduler("priority")
    for n in range(2):
        facts = make_facts(kv_capacity_tokens=CAPACITY, max_model_len=CAPACITY)
        add_instance(scheduler, f"i{n}", facts=facts)
        scheduler.enqueue(make_request(n, prompt=500, output=500), 0.0)
        scheduler.schedule(0.0)
    scheduler.enqueue(make_request("head", prompt=500, output=500), 0.0)
    scheduler.enqueue(make_request("another", prompt=500, output=500), 0.0)
    assert scheduler.schedule(0.0) == []
    (pool,) = scheduler._registry.pools()
    assert pool.claim is not None
    before = pool.claim.account

    before.keep_quiet(True)
    pool.changed = True
    assert scheduler.schedule(1.0) == []

    assert pool.claim.account is not before
