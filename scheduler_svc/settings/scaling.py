"""How many instances of each model there are to be."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from sage_common.configuration import Section


class BoundsSection(Section):
    """The fewest and the most instances of one model in one role."""

    min: int = Field(default=1, ge=0, description="Fewest instances; 0: down to none while nobody asks.")
    max: int = Field(default=8, ge=1, description="Most instances.")

    @model_validator(mode="after")
    def _are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class ScalingSection(Section):
    """How many instances of each model there are to be; who starts and drains them follows that."""

    enabled: bool = Field(default=False, description="Work out how many instances of each model are needed.")
    interval_s: float = Field(default=5.0, gt=0, description="Seconds between two looks at the load.")
    share: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Most of what instances can do with every slot taken that they are meant to carry.  Less where they"
        " miss targets at that.",
    )
    late_share: float = Field(
        default=0.03, ge=0, le=1, description="Share of requests that may miss a target before more are needed."
    )
    up_delay_s: float = Field(
        default=10.0, ge=0, description="Seconds for which more instances are needed before more are desired."
    )
    down_delay_s: float = Field(
        default=300.0, ge=0, description="Seconds for which fewer instances are needed before fewer are desired."
    )
    idle_s: float = Field(
        default=600.0, ge=0, description="Seconds without a request before a model whose min is 0 goes to zero."
    )
    trend_s: float = Field(default=300.0, gt=0, description="Seconds of load from which its rise is estimated.")
    warm_up_s: float = Field(
        default=60.0, gt=0, description="Seconds that a start takes, until one of the model was measured."
    )
    min: int = Field(default=1, ge=1, description="Fewest instances of a model and role that models does not name.")
    max: int = Field(default=8, ge=1, description="Most instances of a model and role that models does not name.")
    models: dict[str, dict[Literal["general", "prefilling", "decoding", "embedding"], BoundsSection]] = Field(
        default_factory=dict,
        description="Bounds by model and role.  These models are known without an instance: only they may go to zero.",
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self
