"""Messages onto the wire, and the values that later versions may bring."""

from __future__ import annotations

from array import array

import pytest
from google.protobuf.duration_pb2 import Duration

from executor_svc.runtime.engine_port import EngineState, FinishReason, TokenLogprob
from executor_svc.runtime.messages.commands import ReleaseKv
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ack,
    EndCause,
    Ended,
    Frame,
    Piece,
    Rejected,
    RejectReason,
)
from executor_svc.runtime.messages.registration import Role
from executor_svc.runtime.messages.reports import EngineStatus, KvReleased
from executor_svc.transport import enums
from executor_svc.transport.control_messages import command_from_wire, control_request, welcome_from_wire
from executor_svc.transport.output_messages import acks, output_request
from sage.controlplane.v1 import common_pb2, executor_pb2


def test_a_frame_carries_every_piece() -> None:
    logprob = TokenLogprob(token_id=4, logprob=-0.5, rank=None)
    pieces = [
        Piece(1, 7, [3, 4], "ab"),
        Piece(2, 0, array("I", [5]), "", [[logprob, TokenLogprob(token_id=9, logprob=-2.0, rank=2)]]),
    ]
    first, second = output_request(Frame(pieces)).frame.tokens
    assert (first.attempt_number, first.first_index, list(first.token_ids), first.text) == (1, 7, [3, 4], "ab")
    assert (second.attempt_number, list(second.token_ids)) == (2, [5])
    chosen, other = second.logprobs[0].candidates
    assert (chosen.token_id, chosen.logprob, chosen.HasField("rank")) == (4, -0.5, False)
    assert (other.token_id, other.rank) == (9, 2)


def test_an_end_carries_how_it_came_about() -> None:
    ended = output_request(
        Ended(
            attempt_number=3,
            cause=EndCause.FINISHED,
            total_tokens=8,
            finish_reason=FinishReason.STOP,
            stop_token_id=0,
            trailing_text="x",
            kv_transfer_params={"remote": 1},
            engine_time_s=1.25,
        )
    ).ended
    assert (ended.cause, ended.finish_reason) == (
        executor_pb2.AssignmentEnded.CAUSE_FINISHED,
        common_pb2.FINISH_REASON_STOP,
    )
    assert ended.HasField("stop_token_id")
    assert (ended.total_tokens, ended.trailing_text, ended.kv_transfer_params) == (8, "x", b'{"remote": 1}')
    assert ended.engine_time == Duration(seconds=1, nanos=250_000_000)


def test_an_end_without_a_stop_token_says_so() -> None:
    ended = output_request(Ended(attempt_number=3, cause=EndCause.FAILED, total_tokens=0, message="m")).ended
    assert not ended.HasField("stop_token_id")
    assert (ended.message, ended.kv_transfer_params) == ("m", b"")


def test_notices() -> None:
    assert output_request(Accepted(attempt_number=5)).accepted.attempt_number == 5
    rejected = output_request(Rejected(attempt_number=5, reason=RejectReason.FULL, message="m")).rejected
    assert rejected.reason == executor_pb2.AssignmentRejected.REASON_FULL


def test_every_value_has_its_word_on_the_wire() -> None:
    assert set(enums.STATE_TO_WIRE) == set(EngineState)
    assert set(enums.ROLE_TO_WIRE) == set(Role)
    assert set(enums.CAUSE_TO_WIRE) == set(EndCause)
    assert set(enums.REJECT_TO_WIRE) == set(RejectReason)
    assert set(enums.FINISH_TO_WIRE) == {None, *FinishReason} - {FinishReason.ABORTED}


def test_a_status_without_progress_says_none() -> None:
    status = control_request(EngineStatus(state=EngineState.LOADING)).engine_status
    assert not status.HasField("progress")
    assert not status.HasField("facts")


def test_acknowledgements() -> None:
    response = executor_pb2.OutputsResponse(
        acks=[executor_pb2.OutputAck(attempt_number=1, tokens=4), executor_pb2.OutputAck(attempt_number=2, ended=True)]
    )
    assert acks(response) == [
        Ack(attempt_number=1, tokens=4, ended=False),
        Ack(attempt_number=2, tokens=0, ended=True),
    ]


def test_a_message_of_a_later_version_is_no_command() -> None:
    assert command_from_wire(executor_pb2.ControlResponse()) is None


def welcome(**fields: object) -> executor_pb2.Welcome:
    given = {"lease": Duration(seconds=5), "heartbeat_interval": Duration(seconds=1), **fields}
    return executor_pb2.Welcome(session_id="s", epoch=7, **given)  # type: ignore[arg-type]


def test_a_role_of_a_later_version_is_general() -> None:
    assert welcome_from_wire(welcome(role=99)).role is Role.GENERAL


@pytest.mark.parametrize("field", ["lease", "heartbeat_interval"])
def test_a_lease_nobody_could_keep_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="has no lease"):
        welcome_from_wire(welcome(**{field: Duration()}))


def test_a_release_is_asked_for_and_answered_by_number() -> None:
    asked = executor_pb2.ControlResponse(
        release_kv=executor_pb2.ReleaseKv(number=9, kv_transfer_params=b'{"remote": [1]}')
    )
    assert command_from_wire(asked) == ReleaseKv(number=9, kv_transfer_params={"remote": [1]})
    answer = control_request(KvReleased(number=9, released=False, message="m")).kv_released
    assert (answer.number, answer.released, answer.message) == (9, False, "m")


def test_an_end_without_a_handoff_has_no_lease() -> None:
    ended = output_request(Ended(attempt_number=3, cause=EndCause.FINISHED, total_tokens=8)).ended
    assert not ended.HasField("kv_lease")
