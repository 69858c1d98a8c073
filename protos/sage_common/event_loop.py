"""Chooses the event loop that a process runs on."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable


def loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop: asyncio's own or, if it is asked for, uvloop's.  Raises ImportError."""
    if not uvloop:
        return asyncio.new_event_loop
    made: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return made
