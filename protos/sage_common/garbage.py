"""Sets how often Python's garbage collector looks for cycles."""

from __future__ import annotations

import atexit
import gc

THRESHOLD = 20_000
"""Allocations, less deallocations, between two collections of young objects.  A step of a few hundred streams makes
thousands of short-lived objects without cycles, and Python's default is to collect at every 700."""


def collect_seldom() -> None:
    """Look for cycles among young objects at every ``THRESHOLD``."""
    gc.set_threshold(THRESHOLD)


def leave_out_present_objects() -> None:
    """Collect once, then leave the objects alive now out of later collections.  For the end of a service's start."""
    gc.collect()
    gc.freeze()


def start_and_end_fast() -> None:
    """Collect seldom from now on, and never when the interpreter ends.  For the first line of a program's imports.

    Imports make objects that stay, in which Python's default looks for cycles again and again; at its end the
    interpreter looks through all of them once more, although the kernel takes them back.  For a process that imports
    vLLM both together are a third of the time that import and end take.
    """
    collect_seldom()
    atexit.register(gc.freeze)  # what was registered later runs before it
