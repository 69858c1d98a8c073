"""Limits and defaults of admission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler_svc.control.requests.prompt_memory import PromptMemoryLimits


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeSettings:
    """Limits and defaults of admission."""

    arriving_limit: int = 4_096  # requests being validated and tokenized at the same time
    default_deadline_s: float = 3_600.0  # for requests without one, so that none waits for ever
    sampling_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by model
    prefix_aware: bool = True  # hash prompts, so that placement can follow prefix caches
    prompt_memory: PromptMemoryLimits = field(default_factory=PromptMemoryLimits)
