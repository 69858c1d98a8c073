"""Sends a call again whose scheduler is away or recovers: only for calls that may be sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sage_client._errors import RecoveringError, UnavailableError
from sage_client._generate_transport import RECOVERING_S
from sage_client._reconnect import Reconnect

_R = TypeVar("_R")


async def until_answered(call: Callable[[float], Awaitable[_R]], reconnect: Reconnect, timeout_s: float) -> _R:
    """Return the answer of ``call``, which is given the seconds that are left.

    It is made again while the scheduler recovers, for as long as ``timeout_s`` allows, and where there was no
    connection or it broke, as often and as long as ``reconnect`` allows.  Raises what the last one raised.
    """
    loop = asyncio.get_running_loop()
    end, broken, broken_since = loop.time() + timeout_s, 0, 0.0
    while True:
        try:
            return await call(max(0.001, end - loop.time()))
        except RecoveringError as error:
            pause_s, broken = error.retry_after_s or RECOVERING_S, 0
            if loop.time() + pause_s >= end:
                raise
        except UnavailableError:
            broken += 1
            broken_since = loop.time() if broken == 1 else broken_since
            pause_s = reconnect.delay_s(broken)
            last = min(end, broken_since + reconnect.submit_s)
            if broken > reconnect.attempts or loop.time() + pause_s >= last:
                raise
        await asyncio.sleep(pause_s)
