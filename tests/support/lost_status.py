"""The status of a call that ended while its client wrote, which grpc.aio loses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

STATUS_LOST = "Internal error from Core"
"""What grpc.aio says of a call that ended while its client wrote: the status that the service sent is lost."""

CALLS = 20

T = TypeVar("T")


def is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Return whether ``error`` has gRPC's own status in place of the service's."""
    return error.details() == STATUS_LOST


async def with_status(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call, and make it again, 20 times in all, while the status of its end is lost.

    Raises AioRpcError with the service's status.
    """
    for _ in range(CALLS - 1):
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if not is_lost(error):
                raise
    return await call()
