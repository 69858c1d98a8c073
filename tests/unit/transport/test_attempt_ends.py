"""What executors say of the ends of attempts arrives in control.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.transport import attempt_ends
from tests.unit.transport.completeness import at_default, unset


def test_an_attempts_end() -> None:
    wire = executor_pb2.AssignmentEnded(
        attempt_number=12,
        cause=executor_pb2.AssignmentEnded.CAUSE_INVALID,
        finish_reason=common_pb2.FINISH_REASON_STOP,
        stop_string="x",
        stop_token_id=2,
        total_tokens=9,
        trailing_text="z",
        cached_prompt_tokens=1,
        field="sampling.regex",
        message="no",
        kv_transfer_params=b"{}",
        kv_lease=Duration(seconds=30),
        engine_time=Duration(seconds=4),
        kv_unclaimed=True,
        kv_recomputed=True,
        engine_died=True,
        epoch=7,
        embedding=b"1234",
    )
    assert unset(wire) == set(), "the test itself must fill everything"
    found = attempt_ends.attempt_end(wire, wire.attempt_number)
    assert found == AttemptEnd(
        attempt_number=12,
        cause=EndCause.INVALID,
        finish_reason="stop",
        stop_string="x",
        stop_token_id=2,
        total_tokens=9,
        trailing_text="z",
        cached_prompt_tokens=1,
        field="spec.sampling.regex",
        message="no",
        engine_time_s=4.0,
        kv_transfer_params=b"{}",
        kv_lease_s=30.0,
        kv_unclaimed=True,
        kv_recomputed=True,
        engine_died=True,
        embedding=b"1234",
    )
    assert at_default(found) == set()


def test_an_end_without_a_known_cause_is_a_failure() -> None:
    wire = executor_pb2.AssignmentEnded(attempt_number=1)
    wire.MergeFromString(executor_pb2.AssignmentEnded(cause=77).SerializeToString())  # type: ignore[arg-type]
    found = attempt_ends.attempt_end(wire, wire.attempt_number)
    assert found.cause is EndCause.FAILED
    assert found.stop_token_id is None


@pytest.mark.parametrize(
    ("theirs", "callers"),
    [("", "spec"), ("sampling.seed", "spec.sampling.seed"), ("spec.sampling.seed", "spec.sampling.seed")],
)
def test_fields_at_fault_are_named_as_the_caller_knows_them(theirs: str, callers: str) -> None:
    assert attempt_ends.attempt_end(executor_pb2.AssignmentEnded(field=theirs), 1).field == callers
