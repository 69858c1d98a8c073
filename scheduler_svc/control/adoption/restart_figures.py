"""What became of an earlier scheduler's requests so far, in figures."""

from __future__ import annotations

from typing import NamedTuple


class RestartFigures(NamedTuple):
    """Of a scheduler that was started after another one, or first: then all are 0."""

    adopted: int = 0  # requests
    recovering: bool = False  # whether requests may still come back
    missing: int = 0  # instances that had a session and have not come back
    recovery_s: float = 0.0  # seconds that the recovery took, or has taken so far
