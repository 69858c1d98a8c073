"""What an operator may set about automatic roles."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleSettings:
    """When instances change between prefill and decode.  Raises ValueError with the offending key named."""

    automatic: bool = False
    interval_s: float = 2.0  # between two looks at the pressures
    pressed: float = 0.8  # pressure from which a side is to get an instance; 1 is what it can just carry
    room: float = 0.7  # most pressure of the side that gives an instance, after it
    gain: float = 0.15  # share by which the higher of the two pressures has to fall
    delay_s: float = 15.0  # for which a change is wanted before it is made
    cooldown_s: float = 30.0  # between two changes of a model
    back_s: float = 120.0  # between two changes of a model in opposite directions
    least_prefill: int = 1  # READY prefill instances that stay
    least_decode: int = 1  # READY decode instances that stay

    def __post_init__(self) -> None:
        for key in ("interval_s", "pressed", "room", "gain"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{key}: {value} is not a positive number")
        for key in ("delay_s", "cooldown_s", "back_s"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{key}: {value} is not at least 0")
        for key in ("least_prefill", "least_decode"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: {getattr(self, key)} is not at least 1")
        if self.gain >= 1:
            raise ValueError(f"gain: {self.gain} is not below 1")
