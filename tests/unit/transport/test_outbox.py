"""What waits for a stream is bounded in messages and in bytes."""

from __future__ import annotations

import pytest

from scheduler_svc.transport.outbox import Outbox, Overflow


def outbox() -> Outbox[str]:
    return Outbox(3, limit_bytes=10, size=len)


async def test_messages_are_bounded() -> None:
    waiting = outbox()
    for _ in range(3):
        waiting.put("")
    with pytest.raises(Overflow):
        waiting.put("")
    assert await waiting.get() == ""
    waiting.put("")


async def test_bytes_are_bounded() -> None:
    waiting = outbox()
    waiting.put("123456")
    with pytest.raises(Overflow):
        waiting.put("12345")
    waiting.put("1234")
    assert await waiting.get() == "123456"
    waiting.put("123456")


async def test_one_message_of_any_size_may_wait() -> None:
    waiting = outbox()
    waiting.put("x" * 100)
    with pytest.raises(Overflow):
        waiting.put("x")
    assert len(await waiting.get()) == 100


async def test_what_is_cleared_counts_no_more() -> None:
    waiting = outbox()
    waiting.put("1234567890")
    waiting.clear()
    waiting.put("1234567890")
    assert await waiting.get() == "1234567890"
