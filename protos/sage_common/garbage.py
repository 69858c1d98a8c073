"""How often Python's garbage collector looks for cycles."""

from __future__ import annotations

import gc

THRESHOLD = 20_000
"""Objects made and not freed after which the collector looks through young ones.  A step of a few hundred streams makes
thousands of short-lived objects without cycles, and Python's default collects at every 700."""


def collect_seldom() -> None:
    """Look for cycles among young objects at every ``THRESHOLD``."""
    gc.set_threshold(THRESHOLD)


def leave_out_present_objects() -> None:
    """Collect once, then never look again at what is alive now: for the end of a service's start."""
    gc.collect()
    gc.freeze()
