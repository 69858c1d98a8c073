"""What an operator sets about tenants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantSettings:
    """One tenant's weight and limits; 0 is no limit.  Raises ValueError with the key named."""

    weight: float = 1.0  # of its share: twice the weight gets twice the tokens
    waiting_limit: int = 0  # requests that wait, over all models
    running_limit: int = 0  # requests that run, over all models
    refuses_at_running_limit: bool = False  # whether further ones are refused; else they wait
    tokens_per_minute: int = 0  # prompt and output

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight: {self.weight} is not a positive number")
        for name in ("waiting_limit", "running_limit", "tokens_per_minute"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative")

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return bool(self.waiting_limit or self.running_limit or self.tokens_per_minute)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareSettings:
    """How tokens count, and the settings of tenants.

    An output token takes a step of the engine in which a prompt takes hundreds; its price at public services is two to
    five times that of a prompt token.  Sheng et al. (OSDI 2024, "Fairness in Serving Large Language Models") count
    prompt tokens once and output tokens twice, as do the defaults.
    """

    prompt_token_weight: float = 1.0
    output_token_weight: float = 2.0
    default: TenantSettings = field(default_factory=TenantSettings)  # of tenants that are not named
    tenants: Mapping[str, TenantSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("prompt_token_weight", "output_token_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: {value} is not a number of at least 0")
        if not self.prompt_token_weight + self.output_token_weight:
            raise ValueError("prompt_token_weight: one of it and output_token_weight has to be above 0")

    def of(self, tenant: str) -> TenantSettings:
        """Return the settings of a tenant."""
        return self.tenants.get(tenant, self.default)

    @property
    def limited(self) -> bool:
        """Whether any tenant has a limit."""
        return self.default.limited or any(each.limited for each in self.tenants.values())
