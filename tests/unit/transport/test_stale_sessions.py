"""What a replaced session still says is dropped before anything acts on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.control.instances.session import Session
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.transport.executor_link import StreamLink
from scheduler_svc.transport.executor_servicer import ExecutorServicer
from scheduler_svc.transport.tokenizer_upload import TokenizerUpload
from tests.unit.control.world import EPOCH, World, expected

M = TypeVar("M")


async def saying(messages: Sequence[M]) -> AsyncIterator[M]:
    for message in messages:
        yield message


def servicer(world: World) -> ExecutorServicer:
    def upload() -> TokenizerUpload:
        return TokenizerUpload(world.plane.intake._maker._prompts._tokenizers, world.plane.models.changed)

    plane = world.plane
    at = plane.instances
    return ExecutorServicer(
        at.registrar, at.sessions, at.reports, plane.attempts, plane.kv_releases, plane.intake.ends, upload, epoch=EPOCH
    )


def replaced_session(world: World) -> Session:
    """The session of an engine that was started again since."""
    executor = world.add("a")
    old = executor.session
    assert old is not None
    executor.crash()
    executor.restart()
    return old


@pytest.mark.parametrize(
    "message",
    [
        executor_pb2.ControlRequest(drain_requested=executor_pb2.DrainRequested(reason="SIGTERM")),
        executor_pb2.ControlRequest(drained=executor_pb2.Drained()),
        executor_pb2.ControlRequest(goodbye=executor_pb2.Goodbye(reason="done")),
        executor_pb2.ControlRequest(heartbeat=executor_pb2.Heartbeat(number=9)),
        executor_pb2.ControlRequest(kv_released=executor_pb2.KvReleased(number=1)),
        executor_pb2.ControlRequest(tokenizer_chunk=executor_pb2.TokenizerChunk(data=b"x", last=True)),
        executor_pb2.ControlRequest(register=executor_pb2.Register(instance_id="a")),
        executor_pb2.ControlRequest(
            engine_status=executor_pb2.EngineStatus(state=common_pb2.INSTANCE_STATE_FAILED, message="died")
        ),
    ],
    ids=lambda message: str(message.WhichOneof("message")),
)
async def test_no_message_of_a_replaced_control_stream_changes_anything(message: executor_pb2.ControlRequest) -> None:
    async with World() as world:
        old = replaced_session(world)
        heard = old.lease.heard_at
        await world.advance(0.3)
        await servicer(world)._read_control(old, saying([message]))
        assert world.state("a") is InstanceState.READY
        session = world.executors["a"].session
        assert session is not None
        assert not session.leaving
        assert old.lease.heard_at == heard
        reader = await world.submit("r")
        await world.advance(1)
        assert reader.token_ids == expected(20)


async def test_no_output_of_a_replaced_session_counts() -> None:
    async with World() as world:
        old = replaced_session(world)
        reader = await world.submit("r", max_tokens=20)
        await world.advance(0.05)
        [number] = world.executors["a"].held
        link = StreamLink("a", epoch=EPOCH, owner="")
        tokens = executor_pb2.AssignmentTokens(
            attempt_number=number, first_index=len(reader.live.output), token_ids=[999], text="?"
        )
        frame = executor_pb2.OutputsRequest(frame=executor_pb2.Frame(tokens=[tokens]))
        ended = executor_pb2.OutputsRequest(
            ended=executor_pb2.AssignmentEnded(
                attempt_number=number, cause=executor_pb2.AssignmentEnded.CAUSE_INVALID, message="no"
            )
        )
        await servicer(world)._read_outputs(old, link, saying([frame, ended]))
        await world.advance(1)
        assert reader.token_ids == expected(20)
