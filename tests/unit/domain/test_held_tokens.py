"""What instances hold of a prompt, by instance and as a column."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.cached_tokens import cached_column
from scheduler_svc.domain.prefixes.prefix_index import PrefixIndex

IDS = [f"i{n:02}" for n in range(24)]


@pytest.fixture
def index() -> PrefixIndex:
    """All of the instances hold the first block, those with an even number two, and one of them four."""
    index = PrefixIndex(max_bytes=10**9)
    for n, name in enumerate(IDS):
        index.open(name, capacity_tokens=10**6)
        index.hold(name, [1, 2] if n % 2 == 0 else [1], 16)
    index.hold("i04", [1, 2, 3, 4], 16)
    return index


@pytest.fixture
def several() -> Accounts:
    """The accounts of every third instance, and of one that the index does not know."""
    return Accounts(Account(name) for name in [*IDS[::3], "unknown"])


def test_the_column_says_what_the_mapping_says(index: PrefixIndex, several: Accounts) -> None:
    held = index.cached_tokens([1, 2, 3, 4, 5], 16)

    for cached in (held, held.at_most(20), held.at_most(0), held.without(index.bits_of(["i00", "i04", "nobody"]))):
        assert cached.column(several).tolist() == [cached.get(a.instance_id, 0) for a in several]
        assert cached_column(dict(cached), several).tolist() == cached.column(several).tolist()
        some = several.where(several.figures.live == 0).where(cached.column(several) > 16)
        assert cached.column(some).tolist() == [cached[a.instance_id] for a in some]


def test_instances_that_do_not_count_are_left_out_of_all(index: PrefixIndex) -> None:
    held = index.cached_tokens([1, 2, 3, 4, 5], 16)

    left = held.without(index.bits_of(IDS[2:]))

    assert dict(left) == {"i00": 32, "i01": 16}
    assert left.without(index.bits_of(["i07"])) is left
    assert not left.without(index.bits_of(IDS))


def test_it_stays_true_of_the_moment_it_was_found(index: PrefixIndex) -> None:
    held = index.cached_tokens([1, 2, 3, 4], 16)

    index.forget("i04")
    index.open("new", capacity_tokens=10**6)

    assert held["i04"] == 64
    assert "new" not in held
    assert len(held) == len(list(held)) == len(IDS)
