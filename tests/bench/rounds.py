"""Figures of several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypedDict


class Spread(TypedDict):
    """The part of a ``Row`` that comes from the rounds."""

    value: float
    lowest: float
    highest: float


def spread(figures: Sequence[float]) -> Spread:
    return {"value": statistics.median(figures), "lowest": min(figures), "highest": max(figures)}
