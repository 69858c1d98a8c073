"""Numbers that no executor can mean, on a session's output stream: nothing of the scheduler's fails of them."""

from __future__ import annotations

import asyncio

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.transport.attempt_reports import LAST_POSITION
from scheduler_svc.transport.executor_link import ACKNOWLEDGE_AFTER_S, StreamLink
from tests.unit.control.world import EPOCH, World
from tests.unit.transport.test_stale_sessions import saying, servicer


@pytest.mark.parametrize("first_index", [LAST_POSITION, LAST_POSITION - 1, 0])
async def test_output_past_the_last_position_is_not_acknowledged(first_index: int) -> None:
    async with World() as world:
        session = world.add("a").session
        assert session is not None
        link = StreamLink("a", epoch=EPOCH, owner="")
        piece = executor_pb2.AssignmentTokens(attempt_number=3, first_index=first_index, token_ids=[1] * 70)
        piece.logprobs.extend([common_pb2.TokenLogprobs()] * 70)
        frame = executor_pb2.OutputsRequest(frame=executor_pb2.Frame(tokens=[piece]))
        await servicer(world)._read_outputs(session, link, saying([frame]))
        await asyncio.sleep(3 * ACKNOWLEDGE_AFTER_S)  # what is acknowledged is sent
        assert len(link.outputs._messages) == (1 if first_index == 0 else 0)
