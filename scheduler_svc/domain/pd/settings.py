"""When requests are split, as an operator sets it; changeable while the scheduler runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class SplitMode(Enum):
    """When a request is split into a prefill leg and a decode leg."""

    NEVER = "never"
    ALWAYS = "always"
    THRESHOLD = "threshold"  # by token counts
    ADAPTIVE = "adaptive"  # where predicted times say that it pays


@dataclass(frozen=True, kw_only=True, slots=True)
class PdSettings:
    """When requests are split.  Raises ValueError with the offending key named."""

    mode: SplitMode = SplitMode.NEVER
    threshold_input_tokens: int = 2048  # THRESHOLD splits prompts at least this long ...
    threshold_ratio: float = 4.0  # ... or this many times longer than the predicted output
    min_split_tokens: int = 64  # a prompt shorter than this is never split by its ratio: the handoff costs more

    def __post_init__(self) -> None:
        if self.threshold_input_tokens < 1:
            raise ValueError(f"threshold_input_tokens: {self.threshold_input_tokens} is not at least 1")
        if not (math.isfinite(self.threshold_ratio) and self.threshold_ratio > 0):
            raise ValueError(f"threshold_ratio: {self.threshold_ratio} is not a positive number")
        if self.min_split_tokens < 1:
            raise ValueError(f"min_split_tokens: {self.min_split_tokens} is not at least 1")

    @property
    def enabled(self) -> bool:
        """Whether any request may be split."""
        return self.mode is not SplitMode.NEVER
