"""Which prefix blocks each instance is believed to hold."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.domain.prefixes.prefix_index import PrefixIndex

BLOCK = 16
NAMES = ("a", "b", "c", "d")


def make_index(*, capacity_tokens: int = 10**9, max_bytes: int = 10**9) -> PrefixIndex:
    index = PrefixIndex(max_bytes=max_bytes)
    for name in NAMES:
        index.open(name, capacity_tokens=capacity_tokens)
    return index


def test_each_instance_is_credited_with_the_leading_blocks_that_it_holds() -> None:
    index = make_index()
    index.hold("a", [1, 2, 3, 4], BLOCK)
    index.hold("b", [1, 2], BLOCK)
    index.hold("c", [7, 8], BLOCK)

    assert index.cached_tokens([1, 2, 3, 9], BLOCK) == {"a": 48, "b": 32}
    assert index.cached_tokens([7], BLOCK) == {"c": 16}
    assert index.cached_tokens([9, 1, 2], BLOCK) == {}
    assert index.cached_tokens([], BLOCK) == {}


@given(
    depths=st.lists(st.integers(0, 40), min_size=len(NAMES), max_size=len(NAMES)),
    asked=st.integers(0, 45),
    shared=st.integers(0, 45),
)
def test_a_lookup_finds_what_a_walk_along_the_prompt_finds(depths: list[int], asked: int, shared: int) -> None:
    index = make_index()
    prompt = [n if n < shared else 1_000 + n for n in range(asked)]
    for name, depth in zip(NAMES, depths, strict=True):
        index.hold(name, range(depth), BLOCK)

    found = index.cached_tokens(prompt, BLOCK)

    assert found == {
        name: min(depth, asked, shared) * BLOCK
        for name, depth in zip(NAMES, depths, strict=True)
        if min(depth, asked, shared)
    }


def test_an_instance_holds_no_more_than_its_kv_cache_and_loses_what_is_longest_unused() -> None:
    index = make_index(capacity_tokens=4 * BLOCK)
    index.hold("a", [1, 2], BLOCK)
    index.hold("a", [11, 12], BLOCK)
    index.hold("a", [1, 2], BLOCK)  # used again

    index.hold("a", [21], BLOCK)

    assert index.cached_tokens([1, 2], BLOCK) == {"a": 32}
    assert index.cached_tokens([21], BLOCK) == {"a": 16}
    assert index.cached_tokens([11, 12], BLOCK) == {"a": 16}, "the end of a prefix goes first"


def test_what_no_prompt_can_find_takes_capacity_too() -> None:
    index = make_index(capacity_tokens=4 * BLOCK)
    index.hold("a", [1, 2], BLOCK)

    index.fill("a", 7, 3 * BLOCK)

    assert index.cached_tokens([1, 2], BLOCK) == {"a": 16}
    assert index.blocks_of("a") == 1


def test_the_index_keeps_to_its_bytes_and_takes_from_the_instance_with_the_most() -> None:
    index = make_index(max_bytes=100_000)
    index.hold("b", [1, 2, 3], BLOCK)
    for start in range(10, 10_000, 10):
        index.hold("a", range(start, start + 10), BLOCK)
        assert index.used_bytes <= 100_000

    assert index.cached_tokens([1, 2, 3], BLOCK) == {"b": 48}
    assert index.cached_tokens(range(9_990, 10_000), BLOCK) == {"a": 160}
    assert index.cached_tokens(range(10, 20), BLOCK) == {}


def test_memory_is_estimated_no_lower_than_it_is() -> None:
    index = make_index()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for name in NAMES[:2]:
        index.hold(name, [n * 2**40 for n in range(20_000)], BLOCK)
    index.hold("c", [-n + 2**63 for n in range(20_000)], BLOCK)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 0.5 * index.used_bytes < used - before <= 1.1 * index.used_bytes


def test_a_new_engine_and_a_gone_one_hold_nothing() -> None:
    index = make_index()
    for name in ("a", "b"):
        index.hold(name, [1, 2], BLOCK)

    index.open("a", capacity_tokens=1_000)
    assert index.cached_tokens([1, 2], BLOCK) == {"b": 32}

    index.forget("b")
    index.open("e", capacity_tokens=1_000)  # takes the place of ``b``
    assert index.cached_tokens([1, 2], BLOCK) == {}
    assert index.used_bytes == 0

    index.hold("e", [1], BLOCK)
    assert index.cached_tokens([1, 2], BLOCK) == {"e": 16}


def test_blocks_that_were_dropped_no_longer_count() -> None:
    index = make_index()
    index.hold("a", [1, 2, 3], BLOCK)

    index.drop("a", [3, 4])
    assert index.cached_tokens([1, 2, 3], BLOCK) == {"a": 32}

    index.clear("a")
    assert index.cached_tokens([1, 2, 3], BLOCK) == {}


def test_an_unknown_instance_holds_nothing() -> None:
    index = make_index()

    assert index.hold("nobody", [1], BLOCK) == 0
    index.drop("nobody", [1])
    index.fill("nobody", 1, 5)
    index.clear("nobody")
    index.forget("nobody")

    assert index.cached_tokens([1], BLOCK) == {}


def test_holding_says_how_many_leading_blocks_were_held_before() -> None:
    index = make_index()
    assert index.hold("a", [1, 2], BLOCK) == 0
    assert index.hold("a", [1, 2, 3], BLOCK) == 2
    assert index.hold("a", [1, 9], BLOCK) == 1


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, str, int, int]]:
    """Draw operations on an instance and one of three prompts, down to some depth of it."""
    kinds = st.sampled_from(["hold", "hold", "hold", "drop", "clear", "open"])
    return draw(st.lists(st.tuples(kinds, st.sampled_from(NAMES), st.integers(0, 2), st.integers(0, 12)), max_size=40))


def prompt_of(topic: int) -> list[int]:
    """Return the hashes of a prompt; all prompts share their first three blocks."""
    return [n if n < 3 else topic * 100 + n for n in range(12)]


@given(operations=operations())
def test_whatever_happened_a_lookup_finds_what_each_instance_holds(
    operations: list[tuple[str, str, int, int]],
) -> None:
    index = make_index()
    held: dict[str, set[int]] = {name: set() for name in NAMES}
    for kind, name, topic, depth in operations:
        prompt = prompt_of(topic)
        if kind == "hold":
            index.hold(name, prompt[:depth], BLOCK)
            held[name] |= set(prompt[:depth])
        elif kind == "drop" and depth >= 3:  # the end of one prompt: others do not go on from it
            index.drop(name, prompt[depth:])
            held[name] -= set(prompt[depth:])
        elif kind == "clear":
            index.clear(name)
            held[name].clear()
        elif kind == "open":
            index.open(name, capacity_tokens=10**9)
            held[name].clear()

    for topic in range(3):
        prompt = prompt_of(topic)
        walked = {name: next((n for n, b in enumerate(prompt) if b not in blocks), 12) for name, blocks in held.items()}
        assert index.cached_tokens(prompt, BLOCK) == {name: n * BLOCK for name, n in walked.items() if n}
    for name in NAMES:
        assert index.blocks_of(name) == len(held[name])
        index.forget(name)
    assert index.used_bytes == 0
