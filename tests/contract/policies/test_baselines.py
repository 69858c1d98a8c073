"""The policies for comparison pass the policies' contract."""

from __future__ import annotations

from scheduler_svc.domain.policies.baselines.table import BASELINES
from tests.contract.policies.policy_contract import PolicyContract


class TestRoundRobin(PolicyContract):
    factory = staticmethod(BASELINES["round_robin"])


class TestRandom(PolicyContract):
    factory = staticmethod(BASELINES["random"])
    free_slots_first = False


class TestPowerOfTwo(PolicyContract):
    factory = staticmethod(BASELINES["power_of_two"])
    free_slots_first = False


class TestLeastRequests(PolicyContract):
    factory = staticmethod(BASELINES["least_requests"])


class TestLeastKv(PolicyContract):
    factory = staticmethod(BASELINES["least_kv"])


class TestSessionAffinity(PolicyContract):
    factory = staticmethod(BASELINES["session_affinity"])


class TestPrefixHash(PolicyContract):
    factory = staticmethod(BASELINES["prefix_hash"])


class TestLlmd(PolicyContract):
    factory = staticmethod(BASELINES["llmd"])


class TestDynamoCost(PolicyContract):
    factory = staticmethod(BASELINES["dynamo_cost"])


class TestLmetric(PolicyContract):
    factory = staticmethod(BASELINES["lmetric"])


class TestLeastPredictedWork(PolicyContract):
    factory = staticmethod(BASELINES["least_predicted_work"])


class TestShortestPrompt(PolicyContract):
    factory = staticmethod(BASELINES["shortest_prompt"])


class TestShortestJob(PolicyContract):
    factory = staticmethod(BASELINES["shortest_job"])


class TestEarliestDeadline(PolicyContract):
    factory = staticmethod(BASELINES["earliest_deadline"])


def test_none_is_left_out() -> None:
    tested = {suite.factory for suite in PolicyContract.__subclasses__()}
    assert set(BASELINES.values()) <= tested
