"""Hashes by which scheduler and executors name the beginnings of prompts."""

from __future__ import annotations

from array import array
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_common.prefix_hashes import MOST_BLOCKS, PrefixHasher, prefix_block_tokens, prefix_hashes, token_bytes


@given(
    prompt=st.lists(st.integers(0, 2**32 - 1), max_size=100),
    block=st.integers(1, 20),
    parts=st.lists(st.integers(0, 40), max_size=8),
)
def test_a_prefix_has_the_same_hash_however_it_grew(prompt: list[int], block: int, parts: list[int]) -> None:
    at_once = prefix_hashes(prompt, block, model="m", adapter="a")
    hasher, start, grown = PrefixHasher("m", "a"), 0, {}
    for end in sorted({min(part, len(prompt)) for part in parts} | set(range(block, len(prompt) + 1, block))):
        hasher = hasher.copy()
        hasher.extend(token_bytes(prompt[start:end]))
        grown[end], start = hasher.value, end

    assert at_once == tuple(grown[end] for end in range(block, len(prompt) + 1, block))


def test_block_sizes_do_not_change_the_hash_of_a_prefix() -> None:
    prompt = list(range(256))

    assert prefix_hashes(prompt, 64, model="m")[1::2] == prefix_hashes(prompt, 128, model="m")


def test_model_adapter_and_every_token_count() -> None:
    prompt = list(range(64))
    hashes = {
        prefix_hashes(prompt, 64, model="m"),
        prefix_hashes(prompt, 64, model="n"),
        prefix_hashes(prompt, 64, model="m", adapter="a"),
        prefix_hashes(prompt, 64, model="ma"),
        prefix_hashes([7, *prompt[1:]], 64, model="m"),
    }
    assert len(hashes) == 5


def test_the_hash_is_the_one_that_the_contract_describes() -> None:
    seed = blake2b(b"1:ma", digest_size=16).digest()
    tokens = (3).to_bytes(4, "little") + (2**32 - 1).to_bytes(4, "little")

    expected = int.from_bytes(blake2b(seed + tokens, digest_size=8).digest(), "little")
    assert prefix_hashes([3, 2**32 - 1], 2, model="m", adapter="a") == (expected,)


def test_the_rest_of_a_block_has_no_hash() -> None:
    assert prefix_hashes([], 4, model="m") == ()
    assert prefix_hashes([1, 2, 3], 4, model="m") == ()
    assert prefix_hashes([1, 2, 3, 4, 5], 4, model="m") == prefix_hashes([1, 2, 3, 4], 4, model="m")


def test_hashes_of_one_prompt_are_bounded() -> None:
    assert len(prefix_hashes(range(MOST_BLOCKS + 10), 1, model="m")) == MOST_BLOCKS


def test_any_sequence_of_token_ids_will_do() -> None:
    assert prefix_hashes(array("i", range(8)), 4, model="m") == prefix_hashes(list(range(8)), 4, model="m")


@pytest.mark.parametrize(("kv_block", "tokens"), [(1, 64), (16, 64), (64, 64), (48, 96), (128, 128), (784, 784)])
def test_prefixes_are_hashed_at_whole_kv_blocks_of_at_least_64_tokens(kv_block: int, tokens: int) -> None:
    assert prefix_block_tokens(kv_block) == tokens
