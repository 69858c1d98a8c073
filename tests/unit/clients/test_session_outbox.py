"""What waits is said in one message, in its final form."""

from __future__ import annotations

import asyncio
from typing import Any

from sage.controlplane.v1 import inference_pb2
from sage_client._call import Call
from sage_client._fleet_view import Cancellation
from sage_client._session_outbox import (
    ENTRIES_LIMIT,
    HANDLES_LIMIT,
    REQUESTS_LIMIT_BYTES,
    UNACCEPTED_LIMIT,
    SessionOutbox,
)
from sage_wire.metadata import TRACEPARENT, TRACESTATE


class Nothing:
    """A sink that looks at nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def cancel(request_id: str, tenant: str, reason: str) -> Cancellation:
    raise AssertionError("not cancelled here")


def call(name: str = "r", text: str = "hi", **fields: Any) -> Call:
    request = inference_pb2.GenerateRequest(
        request_id=name, tenant="acme", spec=inference_pb2.GenerationSpec(text=text), **fields
    )
    return Call(
        request, Nothing(), cancel=cancel, timeout_s=60.0, trace=((TRACEPARENT, "00-1-2-01"), (TRACESTATE, "a=b"))
    )


async def opened() -> SessionOutbox:
    outbox = SessionOutbox()
    assert (await outbox.take()).open.protocol_version
    return outbox


async def idle(outbox: SessionOutbox) -> bool:
    """Whether there is nothing to say."""
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    taking.cancel()
    return not taking.done()


async def test_the_first_message_opens_the_session_and_brings_what_waits() -> None:
    outbox = SessionOutbox()
    outbox.begin(1, call("a"))
    outbox.begin(2, call("b"))

    message = await outbox.take()

    assert message.HasField("open")
    assert [(each.handle, each.request.request_id) for each in message.submit] == [(1, "a"), (2, "b")]
    assert message.submit[0].trace_context.traceparent == "00-1-2-01"
    assert message.submit[0].trace_context.tracestate == "a=b"
    assert await idle(outbox)


async def test_everything_goes_into_one_message() -> None:
    outbox = await opened()
    outbox.begin(3, call())
    outbox.pause(1, True)
    outbox.leave(2)
    outbox.acknowledge(9, now=False)
    outbox.ping(4)

    message = await outbox.take()

    assert [each.handle for each in message.submit] == [3]
    assert (list(message.pause), list(message.leave)) == ([1], [2])
    assert (message.acknowledged, message.ping) == (9, 4)
    assert await idle(outbox)


async def test_of_pause_and_resume_the_last_one_counts() -> None:
    outbox = await opened()
    outbox.pause(1, True)
    outbox.pause(1, False)
    outbox.pause(2, False)
    outbox.pause(2, True)

    message = await outbox.take()

    assert (list(message.pause), list(message.resume)) == ([2], [1])


async def test_a_handle_that_is_left_or_over_is_not_paused() -> None:
    outbox = await opened()
    outbox.pause(1, True)
    outbox.leave(1)
    outbox.pause(2, True)
    outbox.ended(2)

    message = await outbox.take()

    assert (list(message.pause), list(message.leave)) == ([], [1])


async def test_a_request_that_is_left_before_it_was_sent_is_not_sent() -> None:
    outbox = await opened()
    outbox.begin(1, call())
    outbox.leave(1)

    assert await idle(outbox)


async def test_a_paused_call_is_begun_paused() -> None:
    outbox, paused = await opened(), call()
    paused.pause()
    outbox.begin(1, paused)

    message = await outbox.take()

    assert ([each.handle for each in message.submit], list(message.pause)) == ([1], [1])


async def test_an_acknowledgement_is_written_once() -> None:
    outbox = await opened()
    outbox.acknowledge(8, now=True)
    assert (await outbox.take()).acknowledged == 8
    outbox.ping(1)
    assert (await outbox.take()).acknowledged == 0
    assert outbox.acknowledged == 8


async def test_a_call_with_output_attaches_at_the_position_of_each_choice() -> None:
    outbox, running = await opened(), call()
    running.request.spec.sampling.n = 3
    running.take_accepted(inference_pb2.Accepted(request_id="r"))
    running.take_output(0, [1, 2], "ab")
    running.take_output(2, [5], "c")
    outbox.begin(1, running)

    (attach,) = (await outbox.take()).attach

    assert (attach.handle, attach.request_id, attach.tenant) == (1, "r", "acme")
    assert [(each.choice, each.after_token) for each in attach.after] == [(0, 2), (2, 1)]


async def test_an_accepted_call_without_output_is_submitted_again() -> None:
    outbox, running = await opened(), call(after_token=5)
    running.take_accepted(inference_pb2.Accepted(request_id="r"))
    outbox.begin(1, running)

    message = await outbox.take()

    assert [each.request.after_token for each in message.submit] == [5]


async def test_requests_are_held_back_until_earlier_ones_are_accepted() -> None:
    outbox = await opened()
    for handle in range(1, UNACCEPTED_LIMIT + 3):
        outbox.begin(handle, call())

    assert len((await outbox.take()).submit) == UNACCEPTED_LIMIT
    assert await idle(outbox)
    outbox.accepted(1)
    outbox.ended(2)
    assert [each.handle for each in (await outbox.take()).submit] == [UNACCEPTED_LIMIT + 1, UNACCEPTED_LIMIT + 2]


async def test_a_handle_that_is_left_makes_room_in_the_next_message() -> None:
    """The scheduler takes a message's requests before its leaves."""
    outbox = await opened()
    for handle in range(1, UNACCEPTED_LIMIT + 1):
        outbox.begin(handle, call())
    await outbox.take()
    outbox.begin(UNACCEPTED_LIMIT + 1, call())
    outbox.leave(1)

    first, second = await outbox.take(), await outbox.take()

    assert (list(first.leave), len(first.submit)) == ([1], 0)
    assert [each.handle for each in second.submit] == [UNACCEPTED_LIMIT + 1]


async def test_no_more_handles_are_begun_than_a_session_may_have() -> None:
    outbox = await opened()
    for handle in range(1, HANDLES_LIMIT + 3):
        outbox.begin(handle, call())
    for begun in range(0, HANDLES_LIMIT, UNACCEPTED_LIMIT):
        await outbox.take()
        for handle in range(begun + 1, begun + UNACCEPTED_LIMIT + 1):
            outbox.accepted(handle)

    assert await idle(outbox)
    outbox.leave(1)
    outbox.ended(2)
    first, second = await outbox.take(), await outbox.take()
    assert [each.handle for each in first.submit] == [HANDLES_LIMIT + 1]
    assert [each.handle for each in second.submit] == [HANDLES_LIMIT + 2]


async def test_large_requests_are_spread_over_messages() -> None:
    outbox = await opened()
    for handle in range(1, 11):
        outbox.begin(handle, call(text="x" * 200_000))

    sizes: list[int] = []
    while sum(sizes) < 10:
        message = await outbox.take()
        assert message.ByteSize() < REQUESTS_LIMIT_BYTES + 256 * 1024
        sizes.append(len(message.submit))

    assert sizes == [3, 3, 3, 1]


async def test_many_leaves_are_spread_over_messages() -> None:
    outbox = await opened()
    for handle in range(1, ENTRIES_LIMIT + 10):
        outbox.leave(handle)

    assert [len((await outbox.take()).leave) for _ in range(2)] == [ENTRIES_LIMIT, 9]
    assert await idle(outbox)
