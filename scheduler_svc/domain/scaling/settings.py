"""What an operator may set about the number of instances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from scheduler_svc.domain.instance_spec import InstanceRole


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The fewest and the most instances of one model in one role.  Raises ValueError."""

    least: int = 1  # 0: down to none while nobody asks
    most: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or not self.most:
            raise ValueError(f"min {self.least}, max {self.most}: 0 <= min <= max and 1 <= max are needed")

    def clamp(self, count: int) -> int:
        """Return the number within the bounds that is closest to ``count``."""
        return min(max(count, self.least), self.most)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingSettings:
    """How the number of instances follows the load.  Raises ValueError with the offending key named."""

    enabled: bool = False
    interval_s: float = 5.0  # between two looks at the load
    share: float = 0.7  # most of what instances can do with every slot taken that they are meant to carry
    late_share: float = 0.03  # of requests that may miss a target before more instances are needed
    up_delay_s: float = 10.0  # a larger number is wanted for this long before it is desired
    down_delay_s: float = 300.0  # the same of a smaller number
    idle_s: float = 600.0  # without a request before a model goes to zero, where its bounds allow that
    trend_s: float = 300.0  # of load from which its rise is estimated
    warm_up_s: float = 60.0  # from the wish for an instance until it is READY, before any start was measured
    bounds: Bounds = Bounds()  # of models that ``models`` does not name
    models: Mapping[str, Mapping[InstanceRole, Bounds]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            positive = each.name in ("interval_s", "share", "trend_s", "warm_up_s")
            if isinstance(value, float) and not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
                raise ValueError(f"{each.name}: {value} is not {'a positive number' if positive else 'at least 0'}")
        if self.share > 1:
            raise ValueError(f"share: {self.share} is above 1")

    def bounds_of(self, model: str, role: InstanceRole) -> Bounds:
        """Return the bounds of a model's instances of one role."""
        return self.models.get(model, {}).get(role, self.bounds)
