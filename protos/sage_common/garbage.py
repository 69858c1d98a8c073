"""Sets how often Python's garbage collector looks for cycles."""

from __future__ import annotations

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
