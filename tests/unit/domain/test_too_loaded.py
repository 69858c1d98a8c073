"""Which instances' caches do not count for a while, and what the others hold."""

from __future__ import annotations

import numpy as np
import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.prefixes.prefix_index import PrefixIndex
from scheduler_svc.domain.prefixes.too_loaded import TooLoaded

IDS = [f"i{n:02}" for n in range(12)]
OVER = ["i02", "i03", "i07"]


@pytest.fixture
def index() -> PrefixIndex:
    """All instances hold the first block, and some of them more."""
    index = PrefixIndex(max_bytes=10**9)
    for name in IDS:
        index.open(name, capacity_tokens=10**6)
        index.hold(name, [1], 16)
    for name in ("i03", "i04"):
        index.hold(name, [1, 2, 3], 16)
    index.hold("i07", [11, 12], 16)
    return index


@pytest.fixture
def accounts() -> Accounts:
    return Accounts(Account(name) for name in IDS)


@pytest.fixture
def too_loaded(index: PrefixIndex, accounts: Accounts) -> TooLoaded:
    mask = np.array([name in OVER for name in IDS])
    return TooLoaded(accounts, mask, bits=index.bits_of(OVER), until=0)


def test_it_knows_which_they_are_of_the_instances_that_are_offered(accounts: Accounts, too_loaded: TooLoaded) -> None:
    offered = accounts.where(np.array([name not in ("i00", "i03") for name in IDS]))

    assert [accounts[row].instance_id for row in too_loaded.among(accounts).nonzero()[0].tolist()] == OVER
    assert [offered[row].instance_id for row in too_loaded.among(offered).nonzero()[0].tolist()] == ["i02", "i07"]
    assert [name for name in [*IDS, "unknown"] if name in too_loaded] == OVER


def test_the_column_of_the_others_says_what_the_mapping_says(
    index: PrefixIndex, accounts: Accounts, too_loaded: TooLoaded
) -> None:
    held = index.cached_tokens([1, 2, 3, 4], 16)
    spared = too_loaded.spare(held)

    assert too_loaded.hold_any(held)
    for offered in (accounts, accounts.where(np.array([name != "i03" for name in IDS]))):
        column = too_loaded.spared_column(held, offered)
        assert column is not None
        assert column.tolist() == [spared.get(a.instance_id, 0) for a in offered]
    assert held.column(accounts).tolist() == [held[name] for name in IDS]


def test_where_nobody_else_holds_any_there_is_no_column(
    index: PrefixIndex, accounts: Accounts, too_loaded: TooLoaded
) -> None:
    held = index.cached_tokens([11, 12], 16)

    assert too_loaded.hold_any(held)
    assert too_loaded.spared_column(held, accounts) is None
    assert not too_loaded.spare(held)


def test_what_none_of_them_holds_is_left_as_it_is(index: PrefixIndex, too_loaded: TooLoaded) -> None:
    index.hold("i00", [21], 16)
    held = index.cached_tokens([21], 16)

    assert not too_loaded.hold_any(held)
    assert not too_loaded.hold_any(index.cached_tokens([31], 16))
    assert too_loaded.spare(held) is held
