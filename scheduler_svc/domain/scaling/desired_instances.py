"""How many instances of one model and role there are to be."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.scaling.settings import Bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class DesiredInstances:
    """The number of instances to have, with everything needed to explain it."""

    model: str
    role: InstanceRole  # GENERAL stands for HYBRID, too
    desired: int
    ready: int  # READY or, for a moment, SUSPECT
    starting: int
    bounds: Bounds
    reason: str  # in words
    since: float  # when the number became the desired one, seconds on the scheduler's clock
    load: float  # in instances with every slot taken
    forecast: float  # the same at the time at which an instance would be READY that is started now
    warm_up_s: float  # from registration to READY, measured; a setting until then
    price_per_hour: float  # of the desired number, as far as prices are known
    remove_first: tuple[str, ...]  # ids of the instances there are; the first to go first
