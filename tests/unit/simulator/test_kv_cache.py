"""The blocks of a modelled KV cache: private, shared, idle, evicted."""

from __future__ import annotations

from sage_simulator.kv_cache import KvCache


def with_idle(*prefixes: int) -> KvCache:
    """A cache of ten blocks with idle prefixes of two blocks each, the first one longest unused."""
    cache = KvCache(10)
    for each in prefixes:
        cache.take(2)
        assert cache.publish(each, 2)
        cache.let_go([each])
    return cache


def test_idle_prefixes_are_found_and_count_as_free() -> None:
    cache = with_idle(1, 2)
    assert (cache.used_blocks, cache.idle_blocks, cache.free_blocks) == (0, 4, 10)
    assert cache.cached_prefixes((1, 2, 3)) == 2
    assert cache.cached_prefixes((3, 1, 2)) == 0


def test_the_prefix_longest_unused_is_evicted_first() -> None:
    cache = with_idle(1, 2, 3)
    cache.hold([1])
    cache.let_go([1])
    cache.take(5)  # four blocks are empty
    assert [cache.cached_prefixes((each,)) for each in (1, 2, 3)] == [1, 0, 1]


def test_of_one_sequence_the_longest_prefix_is_evicted_first() -> None:
    cache = KvCache(10)
    cache.take(4)
    cache.publish(1, 2)
    cache.publish(2, 2)
    cache.let_go([1, 2])
    cache.take(7)
    assert [cache.cached_prefixes((each,)) for each in (1, 2)] == [1, 0]


def test_a_held_prefix_is_never_evicted_and_counts_once() -> None:
    cache = with_idle(1)
    assert cache.idle_among([1]) == 2
    cache.hold([1])
    cache.hold([1])
    assert cache.idle_among([1]) == 0
    assert (cache.used_blocks, cache.free_blocks) == (2, 8)
    cache.take(8)
    cache.let_go([1])
    assert cache.used_blocks == 10
    cache.let_go([1])
    assert (cache.used_blocks, cache.idle_blocks) == (8, 2)


def test_a_prefix_that_is_there_is_not_published_twice() -> None:
    cache = with_idle(1)
    cache.take(2)
    assert not cache.publish(1, 2)
    assert not cache.publish(5, 0)
    cache.give_back(2)
    assert cache.used_blocks == 0


def test_changes_tell_what_came_and_what_went() -> None:
    cache = with_idle(1, 2)
    assert cache.take_changes() == ((1, 2), ())
    assert cache.take_changes() == ((), ())

    cache.take(8)  # evicts the first
    cache.give_back(8)
    assert cache.take_changes() == ((), (1,))


def test_a_prefix_that_came_and_went_between_two_reports_went() -> None:
    cache = with_idle(1)
    cache.take(10)
    assert cache.take_changes() == ((), (1,))
