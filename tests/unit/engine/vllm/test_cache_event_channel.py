"""vLLM's KV cache events, as the executor reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from executor_svc.engine.vllm.cache_event_channel import CacheEventChannel, ReceivedEvents, cache_event
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import BlocksRemoved, BlocksStored, CacheCleared


class BlockStored(SimpleNamespace):
    """Named as vLLM names it."""


class BlockRemoved(SimpleNamespace):
    """Named as vLLM names it."""


class AllBlocksCleared(SimpleNamespace):
    """Named as vLLM names it."""


class SomethingNew(SimpleNamespace):
    """An event of a later version."""


def stored(**changes: Any) -> BlockStored:
    values: dict[str, Any] = {
        "block_hashes": [b"x", b"y"],
        "parent_block_hash": b"w",
        "token_ids": [1, 2, 3, 4],
        "block_size": 2,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": None,
        "group_idx": 0,
    }
    return BlockStored(**values | changes)


def removed(*hashes: bytes, **changes: Any) -> BlockRemoved:
    return BlockRemoved(**{"block_hashes": list(hashes), "medium": "GPU", "group_idx": 0} | changes)


def test_blocks_stored_and_removed_and_a_cleared_cache() -> None:
    assert cache_event(stored()) == BlocksStored(hashes=(b"x", b"y"), parent=b"w", token_ids=[1, 2, 3, 4])
    assert cache_event(removed(b"x")) == BlocksRemoved(hashes=(b"x",))
    assert cache_event(AllBlocksCleared()) == CacheCleared()


def test_an_adapters_blocks_are_its_own() -> None:
    event = cache_event(stored(lora_id=1, lora_name="french", extra_keys=[("french",), ("french",)]))

    assert isinstance(event, BlocksStored)
    assert event.adapter == "french"


def test_an_added_adapters_blocks_have_the_name_that_requests_give() -> None:
    named = "french@abc"
    event = stored(lora_name=named, extra_keys=[(named,), (named,)])
    received = ReceivedEvents()
    received.adapters = {named: "french"}
    received.add(0, [event])

    [found] = received.take()
    assert isinstance(found, BlocksStored)
    assert found.adapter == "french"


@pytest.mark.parametrize(
    "event",
    [
        stored(medium="CPU"),
        stored(group_idx=1),
        removed(b"x", medium="CPU"),
        removed(b"x", group_idx=1),
        stored(extra_keys=[("salt",), None]),
        SomethingNew(),
    ],
)
def test_blocks_that_a_prompt_of_token_ids_does_not_find_are_left_out(event: object) -> None:
    assert cache_event(event) is None


def test_an_older_release_tells_less() -> None:
    event = BlockStored(block_hashes=[7], parent_block_hash=None, token_ids=[1], block_size=1, lora_id=None)

    assert cache_event(event) == BlocksStored(hashes=(7,), parent=None, token_ids=[1])


def test_after_a_gap_nothing_before_it_counts() -> None:
    received = ReceivedEvents()
    received.add(0, [removed(b"a")])
    received.add(1, [removed(b"b")])
    assert received.take() == [BlocksRemoved(hashes=(b"a",)), BlocksRemoved(hashes=(b"b",))]

    received.add(3, [removed(b"c")])
    assert received.take() == [CacheCleared(), BlocksRemoved(hashes=(b"c",))]


def test_no_channel_is_opened_where_nothing_is_to_be_told() -> None:
    assert CacheEventChannel.opened(VllmSettings(report_prefix_cache=False)) is None
    assert CacheEventChannel.opened(VllmSettings(prefix_caching=False)) is None
