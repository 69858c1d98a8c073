"""Which instances carry a load together for the least price."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.objectives.carriers import Carriers


def carriers(*instances: tuple[str, float, float]) -> Carriers:
    """Make carriers of a load that an instance of speed 1 just carries.  ``instances``: id, speed, price."""
    accounts = [Account(instance_id) for instance_id, _, _ in instances]
    return Carriers(accounts, [1 / speed for _, speed, _ in instances], {i: price for i, _, price in instances})


def ids(accounts: Sequence[Account]) -> list[str]:
    return sorted(a.instance_id for a in accounts)


UNEQUAL = carriers(("a", 2.0, 7.0), ("b", 1.6, 5.0), ("c", 1.0, 2.2), ("d", 0.8, 1.8))


def test_as_many_are_taken_as_carry_the_load_the_cheapest_for_their_work_first() -> None:
    assert ids(UNEQUAL.with_enough((), share=1.0)) == ["c"]
    assert ids(UNEQUAL.with_enough((), share=0.75)) == ["c", "d"]
    assert ids(UNEQUAL.with_enough(UNEQUAL.among(["a"]), share=0.75)) == ["a"]
    assert ids(UNEQUAL.with_enough((), share=0.1)) == ["a", "b", "c", "d"]


def test_the_dearest_may_be_needed_where_a_cheaper_one_is_not() -> None:
    everyone = UNEQUAL.among("abcd")

    assert ids(UNEQUAL.spared(everyone, share=1 / 3.7)) == ["a", "c", "d"]
    assert ids(UNEQUAL.spared(everyone, share=1 / 5.5)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("kept", "load"), [("", 1.0), ("a", 0.5), ("cd", 1 / 1.8)])
def test_the_load_is_told_as_a_share_of_what_some_carry(kept: str, load: float) -> None:
    assert UNEQUAL.load_of(UNEQUAL.among(kept)) == pytest.approx(load)


def test_what_they_cost_together_is_the_sum_of_the_prices_given() -> None:
    assert UNEQUAL.price(UNEQUAL.among("ad")) == pytest.approx(8.8)


def test_one_whose_price_is_none_of_what_it_carries_is_spared_first() -> None:
    """The load takes next to nothing of each, so that all but the cheapest are left out."""
    idle = Carriers([Account("x"), Account("y")], [0.0, 0.0], {"x": 2.0, "y": 1.0})

    assert ids(idle.spared(idle.among("xy"), share=0.75)) == ["y"]
