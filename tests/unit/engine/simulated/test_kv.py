"""The simulated KV cache: blocks are finite, given back, and found again by their prefix."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from executor_svc.engine.simulated.kv import KvLease, KvPool, block_keys


@pytest.fixture
def pool() -> KvPool:
    return KvPool(capacity_tokens=64, block_size=16)


def test_blocks_are_taken_together_or_not_at_all(pool: KvPool) -> None:
    first, second = KvLease(), KvLease()
    assert pool.take(first, fresh=3)
    assert not pool.take(second, fresh=2)
    assert second.blocks == 0
    assert pool.used == 3


def test_what_is_released_can_be_taken_again(pool: KvPool) -> None:
    lease = KvLease()
    assert pool.take(lease, fresh=4)
    pool.release(lease)
    assert (pool.used, lease.blocks) == (0, 0)
    assert pool.take(KvLease(), fresh=4)


def test_a_published_prefix_is_found_until_its_room_is_needed(pool: KvPool) -> None:
    keys = block_keys(list(range(32)), 16, salt=0)
    lease = KvLease()
    assert pool.take(lease, fresh=2)
    for key in keys:
        pool.publish(lease, key)
    pool.release(lease)
    assert (pool.used, pool.cached_prefix(keys)) == (0, 2)
    assert pool.take(KvLease(), fresh=3)
    assert pool.cached_prefix(keys) == 1  # its tail went first
    assert pool.take(KvLease(), fresh=1)
    assert pool.cached_prefix(keys) == 0


def test_shared_blocks_count_once(pool: KvPool) -> None:
    keys = block_keys(list(range(32)), 16, salt=0)
    first, second = KvLease(), KvLease()
    assert pool.take(first, fresh=2)
    for key in keys:
        pool.publish(first, key)
    assert pool.take(second, cached=keys, fresh=2)
    assert pool.used == 4
    pool.release(first)
    assert pool.used == 4
    pool.release(second)
    assert pool.used == 0


def test_keys_tell_prefixes_apart() -> None:
    tokens = list(range(40))
    assert len(block_keys(tokens, 16, salt=0)) == 2
    assert block_keys(tokens, 16, salt=0) != block_keys(tokens, 16, salt=1)
    changed = block_keys([99, *tokens[1:]], 16, salt=0)
    assert all(one != other for one, other in zip(changed, block_keys(tokens, 16, salt=0), strict=True))


class Blocks(RuleBasedStateMachine):
    """However leases come and go, the pool neither loses nor invents a block."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = KvPool(capacity_tokens=12, block_size=1)
        self.leases: list[KvLease] = []

    @rule(fresh=st.integers(0, 5), prefix=st.integers(0, 3), length=st.integers(0, 4))
    def open(self, fresh: int, prefix: int, length: int) -> None:
        lease = KvLease()
        keys = block_keys([prefix] * length, 1, salt=0)
        cached = keys[: self.pool.cached_prefix(keys)]
        if self.pool.take(lease, fresh=fresh, cached=cached):
            self.leases.append(lease)

    @rule(which=st.integers(0, 20), prefix=st.integers(0, 3), length=st.integers(1, 4))
    def publish(self, which: int, prefix: int, length: int) -> None:
        if self.leases:
            lease = self.leases[which % len(self.leases)]
            if lease.private:
                self.pool.publish(lease, block_keys([prefix] * length, 1, salt=0)[-1])

    @rule(which=st.integers(0, 20))
    def close(self, which: int) -> None:
        if self.leases:
            self.pool.release(self.leases.pop(which % len(self.leases)))

    @invariant()
    def sums_are_right(self) -> None:
        shared = {key for lease in self.leases for key in lease.shared}
        private = sum(lease.private for lease in self.leases)
        assert self.pool.used == len(shared) + private <= self.pool.total


TestBlocks = Blocks.TestCase
