"""What an operator may set about device groups."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceGroupSettings:
    """How the engines that share a device take turns.  Raises ValueError with the offending key named."""

    min_awake_s: float = 5.0  # that an engine stays awake, whoever else is wanted
    turn_factor: float = 4.0  # a turn under load is this many times what the exchange takes; 4 loses a fifth
    drain_limit_s: float = 60.0  # for running requests to end; those left then wait, and go on in the next turn

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{each.name}: {value} is not at least 0")

    def turn_s(self, exchange_s: float) -> float:
        """Return how long a busy engine stays awake while another is wanted; ``exchange_s``: one sleeps, one wakes."""
        return max(self.min_awake_s, self.turn_factor * exchange_s)
