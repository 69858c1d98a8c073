"""Bounds on requests that wait."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from sage_common.configuration import Section


class QueueSection(Section):
    """Bounds on requests that wait."""

    limit_per_model: int = Field(
        default=10_000, ge=1, description="Most requests that may wait for one model; further ones are refused."
    )
    arriving_limit: int = Field(
        default=4_096, ge=1, description="Most requests being validated and tokenized at the same time."
    )
    choices_limit: int = Field(
        default=128,
        ge=1,
        description="Most choices of one request (sampling.n); each waits and runs like a request of its own.",
    )
    prompt_memory_bytes: int = Field(
        default=2**31, ge=1, description="Most bytes of prompts that arrive, wait or run; further ones are refused."
    )
    tenant_prompt_memory_bytes: int = Field(default=2**30, ge=1, description="The same for the prompts of one tenant.")
    default_deadline_s: float = Field(
        default=3_600.0, gt=0, description="Deadline in seconds after arrival of requests that set none."
    )
    unmeetable_deadlines: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="What to do with requests whose deadline is over before they are predicted to leave the queue.",
    )
    wait_limit_s: dict[Literal["CRITICAL", "HIGH", "NORMAL", "LOW", "BACKGROUND"], float] = Field(
        default_factory=dict,
        description="Seconds that requests of a class may wait for their first attempt, by class; others may wait on.",
    )
    orphan_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after which a waiting request fails when no ready instance can serve it.",
    )
    max_attempts: int = Field(
        default=5, ge=1, description="Most attempts of one request that may fail without a new token before it fails."
    )

    @field_validator("wait_limit_s")
    @classmethod
    def _limits_are_positive(cls, value: dict[str, float]) -> dict[str, float]:
        for name, limit_s in value.items():
            if not (math.isfinite(limit_s) and limit_s > 0):
                raise ValueError(f"{name}: {limit_s:g} is not a positive number of seconds")
        return value
