"""Which adapters each instance of a model is to hold."""

from __future__ import annotations

from scheduler_svc.domain.adapters.selection import AdapterUse, Holder, select


def _uses(**requests: int) -> list[AdapterUse]:
    """Adapters by name with their live requests; a later one was used later."""
    return [
        AdapterUse(name=name, requests=count, used_at=float(at)) for at, (name, count) in enumerate(requests.items())
    ]


def test_every_instance_holds_all_adapters_that_fit() -> None:
    chosen = select(_uses(a=0, b=0), [Holder(instance_id="i1", slots=2), Holder(instance_id="i2", slots=4)])
    assert {name: set(held) for name, held in chosen.items()} == {"i1": {"a", "b"}, "i2": {"a", "b"}}


def test_the_one_used_longest_ago_gives_up_its_slot() -> None:
    holder = Holder(instance_id="i1", slots=2, holds=frozenset({"a", "b"}))
    assert select(_uses(a=0, b=0, c=0), [holder]) == {"i1": ("c", "b")}


def test_one_in_use_stays_whatever_was_used_later() -> None:
    holder = Holder(instance_id="i1", slots=1, holds=frozenset({"a"}))
    assert select(_uses(a=1, b=0), [holder]) == {"i1": ("a",)}


def test_two_in_use_do_not_take_the_only_slot_in_turns() -> None:
    holder = Holder(instance_id="i1", slots=1, holds=frozenset({"a"}))
    assert select(_uses(a=1, b=5), [holder]) == {"i1": ("a",)}


def test_one_in_use_that_nobody_holds_takes_the_place_of_one_held_twice() -> None:
    both = frozenset({"a"})
    holders = [Holder(instance_id="i1", slots=1, holds=both), Holder(instance_id="i2", slots=1, holds=both)]
    assert select(_uses(a=3, b=1), holders) == {"i1": ("b",), "i2": ("a",)}


def test_places_stay_as_they_are_once_found() -> None:
    holders = [
        Holder(instance_id="i1", slots=1, holds=frozenset({"b"})),
        Holder(instance_id="i2", slots=1, holds=frozenset({"a"})),
    ]
    assert select(_uses(a=3, b=1), holders) == {"i1": ("b",), "i2": ("a",)}


def test_an_instance_where_loading_failed_is_left_out() -> None:
    failed = Holder(instance_id="i1", slots=2, cannot=frozenset({"a"}))
    assert select(_uses(a=1, b=0), [failed]) == {"i1": ("b",)}


def test_no_slots_hold_nothing() -> None:
    assert select(_uses(a=1), [Holder(instance_id="i1", slots=0)]) == {"i1": ()}
