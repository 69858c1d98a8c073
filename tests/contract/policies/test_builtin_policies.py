"""Every policy the project ships passes the policies' contract."""

from __future__ import annotations

from scheduler_svc.domain.policies.builtin import (
    BUILTIN,
    make_adaptive,
    make_cost_optimized,
    make_fifo,
    make_priority,
    make_slo_aware,
)
from tests.contract.policies.policy_contract import PolicyContract


class TestFifo(PolicyContract):
    factory = staticmethod(make_fifo)


class TestPriority(PolicyContract):
    factory = staticmethod(make_priority)


class TestSloAware(PolicyContract):
    factory = staticmethod(make_slo_aware)
    waits = True


class TestCostOptimized(PolicyContract):
    factory = staticmethod(make_cost_optimized)
    waits = True


class TestAdaptive(PolicyContract):
    factory = staticmethod(make_adaptive)
    waits = True


def test_none_is_left_out() -> None:
    tested = {suite.factory for suite in PolicyContract.__subclasses__()}
    assert set(BUILTIN.values()) <= tested
