"""Chooses the event loop that a process runs on."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from importlib.util import find_spec

UVLOOP = (
    "Run the event loop of uvloop, which takes less CPU per frame.  Needs the package uvloop "
    "(pip install 'sage-control-plane[uvloop]'; vLLM brings it)."
)
"""What the setting ``uvloop`` of a service does."""


def checked_uvloop(value: bool) -> bool:
    """Return the setting ``uvloop``.  Raises ValueError if it is on and the package is not installed."""
    if value and find_spec("uvloop") is None:
        raise ValueError("uvloop is not installed: pip install 'sage-control-plane[uvloop]'")
    return value


def loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop: asyncio's own or, if it is asked for, uvloop's.  Raises ImportError."""
    if not uvloop:
        return asyncio.new_event_loop
    made: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return made
