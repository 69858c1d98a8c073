"""Queues the messages of an executor's control stream; Assigns that wait together are written as one message."""

from __future__ import annotations

from sage.controlplane.v1 import executor_pb2
from scheduler_svc.transport.outbox import Outbox

OUTBOX_LIMIT = 4_096
"""Messages that may wait for an executor on one stream; above it the session is closed as broken."""

OUTBOX_BYTES = 256 * 1024 * 1024
"""The same in bytes: as many as one pass' Assigns with the longest prompts may have."""

BATCH_ASSIGNS = 64
BATCH_BYTES = 256 * 1024
"""Most Assigns of one message, and their bytes together; a larger Assign is a message of its own."""


class ControlOutbox(Outbox[executor_pb2.ControlResponse]):
    """Messages for one control stream, in order.

    A write takes a turn of the event loop, in which a burst brings many Assigns: written one by one they would reach
    their executor long after the last of them was decided.
    """

    def __init__(self, *, batches: bool) -> None:
        """``batches``: whether the executor reads Assigns."""
        super().__init__(OUTBOX_LIMIT, limit_bytes=OUTBOX_BYTES, size=executor_pb2.ControlResponse.ByteSize)
        self._batches = batches

    async def get(self) -> executor_pb2.ControlResponse:
        """Return the next message, waiting for it.  Raises EOFError with the reason once closed and empty."""
        message = await super().get()
        if not (self._batches and _is_assign(message)):
            return message
        more = self.get_more(_is_assign, messages=BATCH_ASSIGNS - 1, size=BATCH_BYTES - message.ByteSize())
        if not more:
            return message
        batch = executor_pb2.ControlResponse()
        batch.assigns.assigns.extend(each.assign for each in (message, *more))
        return batch


def _is_assign(message: executor_pb2.ControlResponse) -> bool:
    return message.HasField("assign")
