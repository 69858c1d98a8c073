"""Figures as columns follow the accounts, and some of the accounts are as good as all."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts, figures_of
from scheduler_svc.domain.capacity.figures import NAMES
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from tests.contract.policies.modelled_fleet import add_instance, make_request, make_scheduler, put_in_state
from tests.unit.domain.random_accounts import change, make_accounts
from tests.unit.domain.test_scores import each_seed


def shown(several: Accounts) -> list[list[float]]:
    """Return every figure of every account, by figure."""
    return [getattr(several.figures, name).tolist() for name in NAMES]


def expected(several: list[Account]) -> list[list[float]]:
    return [[float(getattr(a, name)) for a in several] for name in NAMES]


@each_seed
def test_columns_show_what_the_accounts_show_whatever_happens_to_them(seed: int) -> None:
    rng, ledger = Random(seed), Ledger()
    each = make_accounts(rng, ledger)
    several = Accounts(each)

    for _ in range(5):
        assert shown(several) == expected(each)
        for _ in range(rng.randint(1, 3)):
            change(rng, rng.choice(each), ledger)


@each_seed
def test_what_keeps_prompts_out_is_known_whatever_happens_and_whatever_else_is_read(seed: int) -> None:
    rng, ledger = Random(seed), Ledger()
    each = make_accounts(rng, ledger)
    several = Accounts(each)
    rows = sorted(rng.sample(range(len(each)), rng.randint(0, len(each))))
    some = several.at(rows)

    for _ in range(8):
        full = [[float(n) for n in (a.free_slots, a.free_tokens, a.full_prefill_s)] for a in each]
        opened = {row for row, a in enumerate(each) if a.urgent_limit > 0}
        roomy = {row for row, a in enumerate(each) if a.prompt_limit_leaving_reserve > 0}
        soon = {row for row, a in enumerate(each) if a.free_slots > 0 and a.full_prefill_s > 0}
        assert [set(several.open_rows), set(several.roomy_rows), set(several.soon_rows)] == [opened, roomy, soon]
        assert set(some.open_rows) == {n for n, row in enumerate(rows) if row in opened}
        assert set(some.roomy_rows) == {n for n, row in enumerate(rows) if row in roomy}
        assert set(some.soon_rows) == {n for n, row in enumerate(rows) if row in soon}
        assert several.why_full().T.tolist() == full
        assert several.least_free_tokens == min(a.free_tokens for a in each)
        token_s = [a.computed_token_s for a in each]
        assert several.computed_token_range_s == (min(token_s), max(token_s))
        assert some.why_full().T.tolist() == [full[row] for row in rows]
        if rng.random() < 0.3:
            assert shown(several) == expected(each)
        if rng.random() < 0.1:
            several.close()
        for _ in range(rng.randint(0, 3)):
            change(rng, rng.choice(each), ledger)


@each_seed
def test_what_an_account_is_compared_by_comes_in_the_order_of_the_columns(seed: int) -> None:
    for account in make_accounts(Random(seed), Ledger()):
        assert [float(n) for n in account.compared()] == [float(getattr(account, name)) for name in NAMES]


@each_seed
def test_those_that_are_offered_again_and_again_show_what_their_accounts_show(seed: int) -> None:
    rng, ledger = Random(seed), Ledger()
    each = make_accounts(rng, ledger)
    several = Accounts(each)
    masks = [np.array([rng.random() < share for _ in each]) for share in (0.3, 0.7, 1.0)]
    before, mask = several, np.ones(len(each), dtype=np.bool_)

    for _ in range(12):
        assert shown(several) == expected(each)
        last, mask = mask, rng.choice(masks) if rng.random() < 0.3 else mask
        offered = several.offered(mask)
        assert shown(offered) == expected([a for a, is_offered in zip(each, mask, strict=True) if is_offered])
        assert offered is before or not (mask == last).all() or before is several
        before = offered
        if rng.random() < 0.1:
            several.close()
            before = several
        for _ in range(rng.randint(0, 3)):
            change(rng, rng.choice(each), ledger)


@each_seed
def test_some_of_some_accounts_show_their_own_figures(seed: int) -> None:
    rng = Random(seed)
    each = make_accounts(rng, Ledger())
    masks = [np.array([rng.random() < 0.6 for _ in each]) for _ in range(2)]
    several = Accounts(each)

    some = several.where(masks[0])
    fewer = some.where(masks[1][some.rows])

    kept = [a for a, one, two in zip(each, *masks, strict=True) if one and two]
    assert list(fewer) == kept == [fewer[i] for i in range(len(fewer))] == list(fewer[:])
    assert shown(fewer) == expected(kept)
    assert [fewer.find(a.instance_id) for a in each] == [kept.index(a) if a in kept else None for a in each]
    assert [a for a in some if a not in kept] == list(some.less(fewer))
    assert [list(fewer.only(a.instance_id)) for a in kept] == [[a] for a in kept]


def test_all_of_the_accounts_are_not_copied() -> None:
    several = Accounts([Account("a"), Account("b")])

    assert several.where(np.array([True, True])) is several


def test_a_plain_sequence_has_figures_too() -> None:
    assert figures_of([Account("a")]).live.tolist() == [0.0]


def test_accounts_keep_no_memory_of_compositions_that_are_over() -> None:
    scheduler = make_scheduler("fifo")
    for name in ("i0", "i1"):
        add_instance(scheduler, name)
    for n in range(20):
        scheduler.enqueue(make_request(n), 0.0)
        scheduler.schedule(0.0)
        put_in_state(scheduler, "i1", InstanceState.SUSPECT if n % 2 else InstanceState.READY)

    assert [len(i.account._watches) for i in scheduler.instances()] == [1, pytest.approx(1, abs=1)]


def test_an_instance_that_changes_its_model_keeps_no_memory_of_it() -> None:
    scheduler = make_scheduler("fifo")
    for n in range(5):
        add_instance(scheduler, "i0", model=f"m{n}")
        assert scheduler._registry.pool(f"m{n}").accounts.figures.live.tolist() == [0.0]

    assert len(scheduler.instance("i0").account._watches) == 1


def test_another_price_is_compared_at_once_whoever_gave_the_role() -> None:
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "i0", price_per_hour=3_600.0)
    scheduler.set_role("i0", InstanceRole.HYBRID)
    (pool,) = scheduler._registry.pools()
    assert pool.accounts.figures.price_per_s.tolist() == [1.0]

    scheduler.register(replace(scheduler.instance("i0").spec, price_per_hour=7_200.0), 1.0)

    assert pool.accounts.figures.price_per_s.tolist() == [2.0]
