"""Messages onto the wire, and the values that later versions may bring."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from executor_svc.runtime.engine_port import AdapterSource, EngineState, FinishReason, TokenLogprob
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import AdaptersWanted, Assign, KeepRole, ReleaseKv, SleepWanted
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ack,
    EndCause,
    Ended,
    Piece,
    Rejected,
    RejectReason,
    StepFrame,
)
from executor_svc.runtime.messages.registration import DeviceGroup, Identity, Register, Role
from executor_svc.runtime.messages.reports import (
    AdapterReport,
    AdapterState,
    AdapterStates,
    EngineStatus,
    KvReleased,
    SleepReport,
    SleepState,
)
from executor_svc.transport import enums
from executor_svc.transport.control_messages import (
    commands_from_wire,
    control_request,
    register_request,
    welcome_from_wire,
)
from executor_svc.transport.output_messages import acks, output_requests
from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire.protocol import AUTOMATIC_ROLES, RUN_TIME_ADAPTERS

EPOCH = 7
CHOSEN = TokenLogprob(token_id=4, logprob=-0.5, rank=None)
OTHER = TokenLogprob(token_id=9, logprob=-2.0, rank=2)


def attempt(number: int, epoch: int = EPOCH) -> AttemptId:
    return AttemptId(epoch, number)


def frame(**more: Any) -> StepFrame:
    return StepFrame(epoch=EPOCH, **more)


def step(found: StepFrame) -> executor_pb2.StepFrame:
    (message,) = output_requests(found, step_frames=True)
    return message.step


def older(found: StepFrame) -> list[executor_pb2.OutputsRequest]:
    return list(output_requests(found, step_frames=False))


def ended_message(**more: Any) -> executor_pb2.AssignmentEnded:
    (message,) = older(frame(ended=[Ended(attempt=attempt(3), **more)]))
    return message.ended


def two_entries() -> StepFrame:
    return frame(
        numbers=[1, 2],
        first_indexes=[7, 0],
        counts=[2, 1],
        token_ids=array("I", [3, 4, 5]),
        texts=["a\u00e4\U0001f600", ""],
    )


def test_columns_on_the_wire() -> None:
    found = step(two_entries())
    assert (found.epoch, list(found.attempt_numbers), list(found.first_indexes)) == (EPOCH, [1, 2], [7, 0])
    assert (list(found.counts), list(found.token_ids)) == ([2, 1], [3, 4, 5])
    assert (list(found.text_lengths), found.text) == ([3, 0], "a\u00e4\U0001f600")


def test_columns_that_say_nothing_are_left_out() -> None:
    found = step(frame(numbers=[1], first_indexes=[0], counts=[1], token_ids=array("I", [3]), texts=[""]))
    assert (list(found.counts), list(found.text_lengths), found.text) == ([], [], "")


def test_an_older_scheduler_gets_the_columns_as_a_frame() -> None:
    (message,) = older(two_entries())
    first, second = message.frame.tokens
    assert (first.attempt_number, first.first_index, list(first.token_ids)) == (1, 7, [3, 4])
    assert (first.text, first.epoch) == ("a\u00e4\U0001f600", EPOCH)
    assert (second.attempt_number, second.first_index, list(second.token_ids), second.text) == (2, 0, [5], "")


def test_pieces_carry_log_probabilities_on_both_ways() -> None:
    found = frame(pieces=[Piece(attempt(2), 0, array("I", [5]), "x", [[CHOSEN, OTHER]], True)])
    (old,) = older(found)
    for piece in (step(found).pieces[0], old.frame.tokens[0]):
        chosen, other = piece.logprobs[0].candidates
        assert (piece.attempt_number, list(piece.token_ids), piece.text, piece.kv_recomputed) == (2, [5], "x", True)
        assert (chosen.token_id, chosen.logprob, chosen.HasField("rank")) == (4, -0.5, False)
        assert (other.token_id, other.rank) == (9, 2)


def test_an_older_scheduler_gets_everything_in_order() -> None:
    found = two_entries()
    found.accepted = [Accepted(attempt=attempt(1))]
    found.rejected = [Rejected(attempt=attempt(4), reason=RejectReason.FULL, message="m")]
    found.ended = [Ended(attempt=attempt(1), cause=EndCause.FINISHED, total_tokens=9)]
    kinds = [message.WhichOneof("message") for message in older(found)]
    assert kinds == ["accepted", "rejected", "frame", "ended"]


def test_every_message_names_the_epoch_of_its_attempt() -> None:
    found = frame(
        accepted=[Accepted(attempt=attempt(1))],
        rejected=[Rejected(attempt=attempt(1, epoch=6), reason=RejectReason.STALE_EPOCH, message="m")],
        pieces=[Piece(attempt(1), 0, [5], "", [[CHOSEN]])],
        ended=[Ended(attempt=attempt(1, epoch=6), cause=EndCause.FINISHED, total_tokens=9)],
    )
    wire = step(found)
    assert wire.epoch == EPOCH
    assert [m.epoch for m in (wire.accepted[0], wire.rejected[0], wire.pieces[0], wire.ended[0])] == [0, 6, 0, 6]
    accepted, rejected, tokens, ended = older(found)
    assert accepted.accepted.epoch == tokens.frame.tokens[0].epoch == EPOCH
    assert rejected.rejected.epoch == ended.ended.epoch == 6


def test_an_end_carries_how_it_came_about() -> None:
    ended = ended_message(
        cause=EndCause.FINISHED,
        total_tokens=8,
        finish_reason=FinishReason.STOP,
        stop_token_id=0,
        trailing_text="x",
        kv_transfer_params={"remote": 1},
        engine_time_s=1.25,
    )
    assert (ended.cause, ended.finish_reason) == (
        executor_pb2.AssignmentEnded.CAUSE_FINISHED,
        common_pb2.FINISH_REASON_STOP,
    )
    assert ended.HasField("stop_token_id")
    assert (ended.total_tokens, ended.trailing_text, ended.kv_transfer_params) == (8, "x", b'{"remote": 1}')
    assert ended.engine_time == Duration(seconds=1, nanos=250_000_000)


def test_an_end_without_a_stop_token_says_so() -> None:
    ended = ended_message(cause=EndCause.FAILED, total_tokens=0, message="m")
    assert not ended.HasField("stop_token_id")
    assert (ended.message, ended.kv_transfer_params) == ("m", b"")


def test_a_rejection_says_why() -> None:
    rejected = step(frame(rejected=[Rejected(attempt=attempt(5), reason=RejectReason.FULL, message="m")])).rejected[0]
    assert (rejected.attempt_number, rejected.message) == (5, "m")
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


def test_acknowledgements_without_an_epoch_are_of_the_sessions() -> None:
    response = executor_pb2.OutputsResponse(
        acks=[
            executor_pb2.OutputAck(attempt_number=1, tokens=4),
            executor_pb2.OutputAck(attempt_number=1, epoch=6, ended=True),
        ]
    )
    assert acks(response, EPOCH) == [
        Ack(attempt=attempt(1), tokens=4, ended=False),
        Ack(attempt=attempt(1, epoch=6), tokens=0, ended=True),
    ]


def test_a_message_of_a_later_version_is_no_command() -> None:
    assert list(commands_from_wire(executor_pb2.ControlResponse())) == [None]


def test_a_batch_is_its_assigns_in_their_order() -> None:
    one, other = (
        executor_pb2.Assign(
            attempt=common_pb2.Attempt(epoch=EPOCH, number=number), phase=common_pb2.PHASE_HYBRID, prompt_token_ids=[5]
        )
        for number in (3, 4)
    )
    batch = executor_pb2.ControlResponse(assigns=executor_pb2.Assigns(assigns=[one, other]))
    alone = [*commands_from_wire(executor_pb2.ControlResponse(assign=one))]
    alone += commands_from_wire(executor_pb2.ControlResponse(assign=other))
    assert [command.attempt.number for command in alone if isinstance(command, Assign)] == [3, 4]
    assert list(commands_from_wire(batch)) == alone


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
    assert list(commands_from_wire(asked)) == [ReleaseKv(number=9, kv_transfer_params={"remote": [1]})]
    answer = control_request(KvReleased(number=9, released=False, message="m")).kv_released
    assert (answer.number, answer.released, answer.message) == (9, False, "m")


def test_an_end_without_a_handoff_has_no_lease() -> None:
    ended = ended_message(cause=EndCause.FINISHED, total_tokens=8)
    assert not ended.HasField("kv_lease")


def test_sleep_on_the_wire() -> None:
    wanted = executor_pb2.ControlResponse(sleep_wanted=executor_pb2.SleepWanted(number=3, asleep=True))
    assert list(commands_from_wire(wanted)) == [SleepWanted(number=3, asleep=True)]
    reports = [control_request(SleepReport(number=3, state=state)).sleep_report for state in SleepState]
    assert [executor_pb2.SleepReport.State.Name(each.state) for each in reports] == [
        f"STATE_{state.name}" for state in SleepState
    ]
    assert not reports[0].HasField("sleep_time")
    told = SleepReport(number=3, state=SleepState.ASLEEP, reason="why", sleep_s=1.5, wake_s=0.0)
    sent = control_request(told).sleep_report
    assert (sent.number, sent.reason, sent.sleep_time.ToTimedelta().total_seconds()) == (3, "why", 1.5)
    assert sent.HasField("wake_time")


def test_adapters_on_the_wire() -> None:
    source = executor_pb2.AdapterSource(name="legal", source="org/legal", revision="v2", max_rank=8)
    wanted = executor_pb2.ControlResponse(adapters_wanted=executor_pb2.AdaptersWanted(number=3, adapters=[source]))
    own = AdapterSource(name="legal", source="org/legal", revision="v2", max_rank=8)
    assert list(commands_from_wire(wanted)) == [AdaptersWanted(number=3, sources=[own])]

    states = AdapterStates(
        number=3,
        adapters=[AdapterReport(source=own, state=state, reason="why", weights="w", rank=4) for state in AdapterState],
    )
    assert control_request(states).adapter_states.number == 3
    sent = control_request(states).adapter_states.adapters
    assert [each.source for each in sent] == [source] * len(AdapterState)
    assert [executor_pb2.AdapterState.State.Name(each.state) for each in sent] == [
        f"STATE_{state.name}" for state in AdapterState
    ]
    assert (sent[0].reason, sent[0].weights, sent[0].rank) == ("why", "w", 4)


def test_an_executor_says_with_whom_it_shares_its_device() -> None:
    identity = Identity(instance_id="a", engine_start_id="1", role=Role.GENERAL, model="m")
    assert not register_request(Register(identity=identity)).register.HasField("device_group")
    shared = replace(identity, device_group=DeviceGroup(name="gpu-0", places=2))
    sent = register_request(Register(identity=shared)).register.device_group
    assert (sent.name, sent.places) == ("gpu-0", 2)


def test_an_executor_says_that_it_takes_adapters_while_it_runs() -> None:
    identity = Identity(instance_id="a", engine_start_id="1", role=Role.GENERAL, model="m")
    assert RUN_TIME_ADAPTERS in register_request(Register(identity=identity)).register.capabilities


def test_a_role_that_came_by_itself_goes_back_with_the_next_registration() -> None:
    sent = executor_pb2.AutomaticRole(
        role=common_pb2.INSTANCE_ROLE_PREFILLING,
        previous=common_pb2.INSTANCE_ROLE_DECODING,
        cause="prefill_pressed",
        reason="why",
    )
    sent.age.FromMilliseconds(2_500)
    [command] = commands_from_wire(executor_pb2.ControlResponse(automatic_role=sent))
    assert isinstance(command, KeepRole)
    identity = Identity(instance_id="a", engine_start_id="1", role=Role.DECODING, model="m")
    register = register_request(Register(identity=identity, automatic_role=command.role)).register
    assert register.automatic_role == sent
    assert AUTOMATIC_ROLES in register.capabilities
    assert not register_request(Register(identity=identity)).register.HasField("automatic_role")


@pytest.mark.parametrize("fields", [{}, {"role": 99}, {"role": common_pb2.INSTANCE_ROLE_DECODING, "previous": 99}])
def test_no_role_and_one_that_this_version_does_not_know_are_not_kept(fields: dict[str, int]) -> None:
    sent = executor_pb2.AutomaticRole(**fields)  # type: ignore[arg-type]
    assert list(commands_from_wire(executor_pb2.ControlResponse(automatic_role=sent))) == [KeepRole(role=None)]
