"""One call with messages as bytes, whatever its kind; reads a bounded part of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc

from tests.fuzz.contract_rpcs import Rpc
from tests.support.lost_status import is_lost

Metadata = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Outcome:
    """How a call ended.  ``code`` is CANCELLED where the caller left."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailing: str = ""  # metadata with the status, as text
    replies: list[bytes] = field(default_factory=list)

    def failed(self, error: grpc.aio.AioRpcError) -> None:
        """Take over the status of a call.

        A write to a stream that the service has just ended gets a status of the client's own; the service's is lost.
        """
        own = is_lost(error)
        self.code, self.details = (grpc.StatusCode.CANCELLED if own else error.code()), error.details() or ""
        self.trailing = repr(list(error.trailing_metadata()))


async def call(
    channel: Any,  # a grpc.aio.Channel; the stubs know no messages as bytes
    rpc: Rpc,
    messages: AsyncIterator[bytes],
    *,
    metadata: Metadata,
    timeout_s: float,
    replies: int,
    dice: Random,
) -> Outcome:
    """Send ``messages``, of which a call without a request stream takes the first; leave after ``replies``."""
    outcome = Outcome()
    options: dict[str, Any] = {"metadata": metadata, "timeout": timeout_s}
    try:
        if rpc.requests_stream:
            await _both_ways(channel.stream_stream(rpc.path)(**options), messages, outcome, replies, dice)
        elif rpc.responses_stream:
            streamed = channel.unary_stream(rpc.path)(await anext(messages), **options)
            await _read(streamed, outcome, replies)
        else:
            outcome.replies.append(await channel.unary_unary(rpc.path)(await anext(messages), **options))
    except grpc.aio.AioRpcError as error:
        outcome.failed(error)
    return outcome


async def _both_ways(stream: Any, messages: AsyncIterable[bytes], outcome: Outcome, replies: int, dice: Random) -> None:
    reading = asyncio.ensure_future(_read(stream, outcome, replies))
    try:
        async for message in messages:
            await stream.write(message)
            await asyncio.sleep(dice.choice((0, 0, 0, 0.002)))
        if dice.random() < 0.7:
            await stream.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
        if not stream.done():
            raise
    await reading


async def _read(stream: Any, outcome: Outcome, replies: int) -> None:
    async for reply in stream:
        outcome.replies.append(reply)
        if len(outcome.replies) >= replies:
            stream.cancel()
            outcome.code = grpc.StatusCode.CANCELLED
            return
