"""Tenants whose requests begin with the same system prompt."""

from __future__ import annotations

from dataclasses import dataclass

from sage_simulator.traces.prefix_blocks import PrefixBlocks, content_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """A tenant.  Raises ValueError on a negative length, and unless the weight is above 0."""

    name: str
    weight: float = 1.0  # share of the sessions, relative to the other tenants' weights
    system_prompt_tokens: int = 0  # at the beginning of every prompt of the tenant; 0: none

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight must be a finite number above 0, got {self.weight}")
        if self.system_prompt_tokens < 0:
            raise ValueError(f"system_prompt_tokens must not be negative, got {self.system_prompt_tokens}")

    def system_prompt(self, block_tokens: int) -> PrefixBlocks:
        """Return a prompt that holds the system prompt and nothing else."""
        prompt = PrefixBlocks(block_tokens)
        prompt.append(content_id(f"system prompt of {self.name}"), self.system_prompt_tokens)
        return prompt
