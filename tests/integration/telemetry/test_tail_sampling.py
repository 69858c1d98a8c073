"""What services send and what the shipped collector's policies look for are the same: the right traces are kept."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from executor_svc.engine.simulated.faults import Fault, FaultKind
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.telemetry.caller import Caller
from tests.integration.telemetry.otlp_receiver import OtlpReceiver, Span, Tree
from tests.integration.telemetry.tail_sampling import TailSampling, shipped_environment

NOBODY_MEETS = Duration(nanos=1_000)
STEP_MS, STEPS = 5, 40  # of a slow request; a timer is never early


@pytest.fixture
def caller(fleet: LocalFleet) -> Caller:
    return Caller(fleet=fleet)


@pytest.fixture
def sampling() -> TailSampling:
    """The shipped policies, and no share of the rest."""
    return TailSampling.shipped(SAGE_TRACE_PERCENTAGE="0")


async def whole(receiver: OtlpReceiver, caller: Caller) -> Tree:
    """The trace of an answered request, once every span of it is there: its attempt's are sent by two services."""
    return await receiver.until(caller.trace_id, "sage.request", "sage.attempt", "sage.execute", "sage.decode")


async def test_a_fine_and_fast_request_is_dropped_but_for_its_share(
    receiver: OtlpReceiver, one: LocalExecutor, caller: Caller, sampling: TailSampling
) -> None:
    await caller.answer("Once upon a time", ttft_target=Duration(seconds=60))
    tree = await whole(receiver, caller)
    told = tree.one("sage.request").attributes
    assert (told["sage.slo.met"], "sage.slo.missed" in told) == (True, False)
    assert sampling.kept_by(tree.spans) == []
    every_one = TailSampling.shipped(SAGE_TRACE_PERCENTAGE="100")
    assert every_one.kept_by(tree.spans) == ["a share of the rest"]


@pytest.mark.parametrize(
    ("target", "spec"),
    [("ttft", {"ttft_target": NOBODY_MEETS}), ("tpot", {"tpot_target": NOBODY_MEETS})],
)
async def test_a_request_that_missed_a_target_is_kept_for_that_alone(
    receiver: OtlpReceiver,
    one: LocalExecutor,
    caller: Caller,
    sampling: TailSampling,
    target: str,
    spec: dict[str, Any],
) -> None:
    await caller.answer("Once upon a time", **spec)
    tree = await whole(receiver, caller)
    request = tree.one("sage.request")
    told = request.attributes
    assert (told["sage.slo.met"], told["sage.slo.missed"]) == (False, [target])
    assert (told[f"sage.target.{target}"], told["sage.outcome"]) == (1e-6, "finished")
    assert not any(span.failed for span in tree.spans)
    assert sampling.kept_by(tree.spans) == ["missed a target"]


async def test_a_request_that_failed_is_kept(
    receiver: OtlpReceiver, telemetry: dict[str, Any], sampling: TailSampling
) -> None:
    async with LocalFleet(telemetry=telemetry, queue={"max_attempts": 1}) as fleet:
        one = await fleet.add("one", settings={"telemetry": telemetry})
        one.engine.inject(Fault(kind=FaultKind.ERROR))
        caller = Caller(fleet=fleet)
        assert await caller.refused("Once upon a time") == grpc.StatusCode.ABORTED
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.attempt", "sage.execute")
    request = tree.one("sage.request")
    assert (request.failed, request.attributes["sage.outcome"]) == (True, "failed")
    assert request.attributes["sage.slo.met"] is False, "a failed request meets no target"
    assert sampling.kept_by(tree.spans) == ["failed", "missed a target"]
    assert sampling.kept_by([request]) == ["failed", "missed a target"], "its own span is enough"


async def test_a_callers_own_mistake_is_kept_although_it_counts_against_no_target(
    receiver: OtlpReceiver, one: LocalExecutor, caller: Caller, sampling: TailSampling
) -> None:
    assert await caller.refused("Once upon a time", model="other") == grpc.StatusCode.NOT_FOUND
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.admission")
    assert sampling.kept_by(tree.spans) == ["failed"]


async def test_a_request_that_went_on_elsewhere_is_kept_although_it_finished(
    fleet: LocalFleet, receiver: OtlpReceiver, telemetry: dict[str, Any], caller: Caller, sampling: TailSampling
) -> None:
    for name in ("a", "b"):
        await fleet.add(name, settings={"telemetry": telemetry})
    fleet.executors["a"].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=3))
    await caller.answer("Once upon a time", preferred_instance="a")
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.attempt", "sage.attempt")
    assert not tree.one("sage.request").failed
    assert sampling.kept_by(tree.spans) == ["failed"]


async def test_a_slow_request_is_kept_from_the_threshold_on(
    fleet: LocalFleet, receiver: OtlpReceiver, telemetry: dict[str, Any], caller: Caller, sampling: TailSampling
) -> None:
    await fleet.add("slow", settings={"telemetry": telemetry}, step_base_s=STEP_MS / 1_000)
    await caller.answer("Once upon a time", max_tokens=STEPS)
    tree = await whole(receiver, caller)
    assert sampling.kept_by(tree.spans) == [], "as shipped, it is far from slow"
    strict = TailSampling.shipped(SAGE_TRACE_PERCENTAGE="0", SAGE_TRACE_SLOW_MS=str(STEP_MS * (STEPS - 1)))
    assert strict.kept_by(tree.spans) == ["slow"]


def test_the_shipped_variables_are_those_the_policies_ask_for() -> None:
    environment = shipped_environment()
    assert float(environment["SAGE_TRACE_SLOW_MS"]) == 30_000, "docker/README.md says so"
    assert 0 < float(environment["SAGE_TRACE_PERCENTAGE"]) < 100


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ({"type": "span_count", "span_count": {"min_spans": 2}}, "not known here"),
        ({"type": "latency", "latency": {"threshold_ms": 1, "upper_threshold_ms": 2}}, "upper_threshold_ms"),
        ({"type": "latency", "latency": {"threshold_ms": 1}, "drop": {}}, "not all of which"),
        ({"type": "probabilistic", "probabilistic": {"sampling_percentage": 10}}, "chance decides"),
    ],
)
def test_a_policy_whose_meaning_is_not_known_here_is_an_error(policy: dict[str, Any], complaint: str) -> None:
    span = Span("sage-scheduler", WireSpan(name="sage.request"))
    with pytest.raises((TypeError, ValueError), match=complaint):
        TailSampling([{"name": "new", **policy}], {}).kept_by([span])
