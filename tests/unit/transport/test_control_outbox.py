"""Assigns that wait for a control stream become one message, in order with everything else."""

from __future__ import annotations

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire.protocol import MAX_MESSAGE_BYTES
from scheduler_svc.transport import control_outbox
from scheduler_svc.transport.control_outbox import BATCH_ASSIGNS, BATCH_BYTES, ControlOutbox
from scheduler_svc.transport.outbox import Overflow


def assign(number: int, prompt_tokens: int = 1) -> executor_pb2.ControlResponse:
    return executor_pb2.ControlResponse(
        assign=executor_pb2.Assign(number=number, prompt_token_ids=[300] * prompt_tokens)
    )


def cancel(number: int) -> executor_pb2.ControlResponse:
    attempt = common_pb2.Attempt(epoch=1, number=number)
    return executor_pb2.ControlResponse(cancel=executor_pb2.Cancel(attempt=attempt))


async def written(outbox: ControlOutbox) -> list[executor_pb2.ControlResponse]:
    outbox.close("all is read")
    found = []
    while True:
        try:
            found.append(await outbox.get())
        except EOFError:
            return found


def numbers(message: executor_pb2.ControlResponse) -> list[int]:
    return [each.number for each in message.assigns.assigns]


def filled(*messages: executor_pb2.ControlResponse, batches: bool = True) -> ControlOutbox:
    outbox = ControlOutbox(batches=batches)
    for message in messages:
        outbox.put(message)
    return outbox


async def test_assigns_that_wait_are_one_message() -> None:
    (message,) = await written(filled(assign(1), assign(2), assign(3)))
    assert numbers(message) == [1, 2, 3]


async def test_a_lone_assign_stays_as_it_is() -> None:
    assert await written(filled(assign(1))) == [assign(1)]


async def test_a_cancel_stays_behind_the_assigns_before_it_and_ahead_of_those_after_it() -> None:
    first, between, last = await written(filled(assign(1), assign(2), cancel(2), assign(3)))
    assert (numbers(first), between, last) == ([1, 2], cancel(2), assign(3))


async def test_an_executor_that_does_not_read_batches_gets_each_alone() -> None:
    assert await written(filled(assign(1), assign(2), batches=False)) == [assign(1), assign(2)]


async def test_a_batch_is_bounded_in_assigns() -> None:
    messages = await written(filled(*(assign(number) for number in range(1, BATCH_ASSIGNS + 3))))
    assert [len(numbers(message)) for message in messages] == [BATCH_ASSIGNS, 2]


async def test_a_batch_is_bounded_in_bytes() -> None:
    long = BATCH_BYTES // 5  # tokens of two bytes: two are within the bound, three are not
    first, second = await written(filled(*(assign(number, long) for number in (1, 2, 3))))
    assert (numbers(first), second) == ([1, 2], assign(3, long))


async def test_an_assign_that_is_nearly_as_large_as_a_message_may_be_is_sent_alone() -> None:
    largest = assign(1, MAX_MESSAGE_BYTES // 2 - 1024)  # tokens of two bytes
    messages = await written(filled(largest, assign(2, BATCH_BYTES // 4), assign(3)))
    assert [message.WhichOneof("message") for message in messages] == ["assign", "assigns"]
    assert all(message.ByteSize() <= MAX_MESSAGE_BYTES for message in messages)


async def test_the_bytes_of_a_batch_wait_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_outbox, "OUTBOX_BYTES", 3 * assign(1, 100).ByteSize())
    outbox = filled(assign(1, 100), assign(2, 100))
    await outbox.get()
    for number in (3, 4, 5):
        outbox.put(assign(number, 100))
    with pytest.raises(Overflow):
        outbox.put(assign(6, 100))
