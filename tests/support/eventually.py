"""Waiting, with a bound, for what a test can see but gets no event of."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")
LOOK_EVERY_S = 0.01


@overload
async def eventually(
    condition: Callable[[], Coroutine[Any, Any, T | None]],
    *,
    within_s: float = ...,
    what: str = ...,
    every_s: float = ...,
) -> T: ...


@overload
async def eventually(
    condition: Callable[[], T | None], *, within_s: float = ..., what: str = ..., every_s: float = ...
) -> T: ...


async def eventually(
    condition: Callable[[], Any], *, within_s: float = 30.0, what: str = "", every_s: float = LOOK_EVERY_S
) -> Any:
    """The first true value of ``condition``, which may be asynchronous.  Raises AssertionError after ``within_s``."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if loop.time() > end:
            raise AssertionError(f"{what or 'what was waited for'}: not within {within_s:g} s")
        await asyncio.sleep(every_s)
