"""What is in a frame, and what has to wait for the next one."""

from __future__ import annotations

import pytest
from google.rpc import code_pb2

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import DELIVERY_FAILED
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.transport import events
from scheduler_svc.transport.client_sessions.frame_draft import FrameDraft
from scheduler_svc.transport.client_sessions.handle import Handle
from scheduler_svc.transport.client_sessions.limits import ENTRY_TOKENS, FRAME_BYTES
from tests.support.frame_reader import FrameReader
from tests.unit.control.world import EPOCH, World, expected
from tests.unit.transport.client_sessions.memory_session import TENANT, MemorySession

ONE_ENTRY_BYTES = 8 * ENTRY_TOKENS


async def test_a_request_is_accepted_placed_read_and_ended() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("r", max_tokens=5)
        await world.advance(1)
        events = session.of(handle)
        assert events.accepted is not None
        assert (events.accepted.request_id, events.accepted.attached) == ("r", False)
        assert [placed.decision.instance_id for placed in events.placements] == ["a"]
        assert (events.token_ids, events.text) == (expected(5), "xxxxx")
        assert events.finished is not None
        assert len(session.session) == 0


async def test_tokens_of_many_requests_share_a_frame() -> None:
    async with World(step_s=0.02) as world, MemorySession(world) as session:
        world.add("a", max_running=8)
        handles = [await session.submit(f"r{n}", max_tokens=30) for n in range(8)]
        await world.advance(2)
        assert all(session.of(handle).token_ids == expected(30) for handle in handles)
        assert session.frames.tokens_per_frame.count(8) > 20


async def test_what_follows_a_new_placement_goes_into_the_next_frame() -> None:
    async with World() as world, MemorySession(world, acknowledges=False) as session:
        a = world.add("a")
        handle = await session.submit("r", max_tokens=100)
        await world.advance(0.05)
        session.taking.clear()
        await world.advance(0.1)
        a.crash()
        a.restart()
        await world.advance(0.2)
        before = session.frames.frames
        session.taking.set()
        await world.advance(0.001)
        assert len(session.of(handle).placements) == 1
        await world.advance(1)
        events = session.of(handle)
        assert session.frames.frames >= before + 2
        assert len(events.placements) == 2
        assert events.attempts.index(events.attempts[-1]) == events.placements[1].resumed_from_token
        assert events.token_ids == expected(len(events.token_ids))


async def test_a_reader_that_comes_late_is_told_the_placement_of_each_token() -> None:
    async with World() as world, MemorySession(world) as session:
        a = world.add("a")
        await session.submit("r", max_tokens=60)
        await world.advance(0.2)
        a.crash()
        a.restart()
        await world.advance(2)
        late = await session.attach("r")
        past = await session.attach("r", 50)
        await world.advance(0.1)
        attempts = [placement.decision.attempt.number for placement in session.of(late).placements]
        assert len(attempts) == 2
        assert session.of(late).token_ids == expected(60)
        assert [p.decision.attempt.number for p in session.of(past).placements] == attempts[1:]
        assert session.of(past).token_ids == expected(60)[50:]
        assert (session.of(past).position, session.of(past).first_text_at) == (50, 50)


async def test_held_back_text_is_an_entry_without_tokens() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("r", max_tokens=3)
        await world.advance(1)
        world.plane.requests.get(RequestKey(tenant=TENANT, request_id="r")).output.close("held")
        late = await session.attach("r")
        await world.advance(0.1)
        assert session.of(handle).text == "xxx"
        assert session.of(late).text == "xxxheld"
        assert session.of(late).finished is not None


async def test_a_position_past_the_end_gets_the_end() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("r", max_tokens=3)
        await world.advance(1)
        late = await session.attach("r", 50)
        await world.advance(0.1)
        events = session.of(late)
        assert (events.position, events.token_ids) == (3, [])
        assert events.finished is not None


async def test_a_position_past_a_running_output_is_refused_and_the_request_goes_on() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("r", max_tokens=100)
        await world.advance(0.1)
        late = await session.attach("r", 90)
        await world.advance(2)
        failed = session.of(late).failed
        assert failed is not None
        assert failed.code == code_pb2.INVALID_ARGUMENT
        assert failed.message.startswith("after.after_token: is 90")
        assert session.of(handle).token_ids == expected(100)


async def test_a_defect_in_one_request_ends_that_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_scheduled = events.fill_scheduled

    def broken(
        wire: inference_pb2.Scheduled, placement: Placement, instance: Instance | None, live: LiveRequest, epoch: int
    ) -> None:
        if placement.decision.key.request_id == "bad":
            raise ZeroDivisionError
        fill_scheduled(wire, placement, instance, live, epoch)

    monkeypatch.setattr(events, "fill_scheduled", broken)
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        good = await session.submit("good", max_tokens=30)
        bad = await session.submit("bad", max_tokens=30)
        await world.advance(2)
        failed = session.of(bad).failed
        assert failed is not None
        assert failed.code == code_pb2.INTERNAL
        assert session.of(good).token_ids == expected(30)
        live = world.plane.requests.get(RequestKey(tenant=TENANT, request_id="bad"))
        assert DELIVERY_FAILED in str(live.outcome)


async def test_a_large_output_is_spread_over_frames_of_a_bounded_size() -> None:
    count = 90_000
    async with World() as world, MemorySession(world) as session:
        world.add("a", max_model_len=100_000)
        await session.submit("r", max_tokens=count)
        await world.advance(0.1)
        live = world.plane.requests.get(RequestKey(tenant=TENANT, request_id="r"))
        have, attempt = len(live.output), live.placements[-1].decision.attempt_number
        ids = [2**28 - 1] * (count - have)
        live.output.append(attempt, have, ids, "\N{GRINNING FACE}" * 1_000, None)
        handle = Handle(1, lambda handle, urgent: None, lambda handle: None)
        handle.begin(live, after_token=0, attached=True)
        handle.accept(inference_pb2.HandleAccepted(handle=1))
        reader, left = FrameReader(), True
        while left:
            draft = FrameDraft(world.plane.scheduler, EPOCH)
            left = draft.take(handle)
            frame = inference_pb2.SessionFrame(number=reader.frames + 1)
            draft.write(frame)
            assert frame.ByteSize() <= FRAME_BYTES + ONE_ENTRY_BYTES
            reader.take(frame)
        handle.close()
        assert len(reader.of(1).token_ids) == count
        assert reader.frames > 1
