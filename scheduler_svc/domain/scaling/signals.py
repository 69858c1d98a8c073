"""The figures from which the need for instances of one model and role follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingSignals:
    """Figures of one model and role now.  Counts are of requests where nothing else is said."""

    load: float  # in instances of mean strength with every slot taken
    forecast: float  # the same when an instance would be READY that is started now
    lead_s: float  # until then
    strengths: Sequence[float]  # of the READY instances, cheapest for what they do first; their mean is 1
    starting: int  # instances
    settled: bool  # as many instances as now were READY for long enough for their effect to be seen
    waiting: int
    running: int
    idle_s: float  # since the last request came; infinite before the first
    wait_share: float  # of its TTFT target that a waiting request has waited, the largest
    late_share: float  # of requests that finished recently, those that missed a target
    turned_away: float  # recently: refused for lack of room, displaced, given up or expired while they waited
    kv_use: float  # share of KV tokens taken, [0, 1]

    @property
    def ready(self) -> int:
        """How many instances are READY."""
        return len(self.strengths)

    @property
    def asked_for(self) -> bool:
        """Whether some request waits or runs."""
        return self.waiting > 0 or self.running > 0
