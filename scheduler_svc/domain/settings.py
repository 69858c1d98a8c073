"""Everything about scheduling that an operator may set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from scheduler_svc.domain.pd.settings import PdSettings
from scheduler_svc.domain.prefixes.settings import PrefixSettings
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.scaling.settings import ScalingSettings
from scheduler_svc.domain.shares.settings import ShareSettings
from scheduler_svc.domain.targets import DEFAULT_TARGETS, Targets


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerSettings:
    """Bounds, times and shares of scheduling, and the policy at start.

    Raises ValueError with the offending key named.
    """

    policy: str = "adaptive"  # at start; a name in the catalogue

    # bounds
    queue_limit_per_model: int = 10_000  # waiting requests; resumed ones come on top, they were accepted
    max_models: int = 256
    max_instances: int = 4_096
    max_decisions_per_pass: int = 256  # then scheduler.more is True
    max_switches: int = 64  # policy switches remembered

    # capacity
    lookahead_share: int = 8  # max(1, max_running // this) requests may queue at an engine
    backfill_depth: int = 16  # requests looked at behind a head that fits nowhere
    output_quantile: float = 0.8  # of learned output lengths, for reservations
    output_min_samples: int = 20  # before that, max_tokens is reserved

    # ordering
    ageing_s_per_class: float = 30.0  # seconds of waiting that make up for one class
    instances_per_quiet_one: int = 8  # of so many, one in turn takes prompts of CRITICAL requests only
    late_delay_s: float = 30.0  # how far a request that misses its target steps back; doubles each time
    max_slack_s: float = 600.0  # a later target counts as this far away
    default_targets: Mapping[Priority, Targets] = field(default_factory=lambda: dict(DEFAULT_TARGETS))

    # overload
    shares: ShareSettings = field(default_factory=ShareSettings)  # of tenants
    refuse_hopeless: bool = True  # requests whose deadline is over before they are predicted to be placed
    queue_wait_limit_s: Mapping[Priority, float] = field(default_factory=dict)  # by class; a class left out has none

    # prediction
    forgetting: float = 0.995  # weight of a sample after the next one

    # adaptive
    adaptive_interval_s: float = 0.5  # between evaluations
    adaptive_confirm_s: float = 1.0  # a governor's wish must last this long
    adaptive_dwell_s: float = 60.0  # between two switches

    # prefill/decode separation
    pd: PdSettings = field(default_factory=PdSettings)

    # prefix caches
    prefix: PrefixSettings = field(default_factory=PrefixSettings)

    # number of instances
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    roles: RoleSettings = field(default_factory=RoleSettings)

    # health
    stall_limit_s: float = 10.0  # work held without an engine iteration
    known_wait_limit_s: float = 60.0  # the same while the engine says why it waits
    stall_probation_s: float = 30.0  # a stalled instance that holds no work is tried again after this, doubling to 8x

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and not (math.isfinite(value) and value > 0)
            ):
                raise ValueError(f"{f.name}: {value} is not a positive number")
        if self.instances_per_quiet_one < 2:
            raise ValueError("instances_per_quiet_one: 1 would leave other classes no instance")
        for name in ("output_quantile", "forgetting"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not below 1")
        missing = [p.name for p in Priority if p not in self.default_targets]
        if missing:
            raise ValueError(f"default_targets: no entry for {', '.join(missing)}")
