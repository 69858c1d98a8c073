"""How often and how fast a broken stream is taken up again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnect:
    """Bounds of re-attaching to a request whose stream broke."""

    attempts: int = 6  # in a row without a new token; 0 turns re-attaching off
    first_delay_s: float = 0.1  # seconds before the first attempt
    max_delay_s: float = 2.0  # seconds; delays double up to this

    def delay_s(self, attempt: int) -> float:
        """Seconds before attempt number ``attempt`` (from 1), spread so that clients do not come in step."""
        ceiling = min(self.first_delay_s * 2.0 ** (attempt - 1), self.max_delay_s)
        return ceiling * random.uniform(0.5, 1.0)
