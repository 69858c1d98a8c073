"""Shares and limits of tenants."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sage_common.configuration import Section


class TenantSection(Section):
    """Weight and limits of a tenant; 0 is no limit."""

    weight: float = Field(default=1.0, gt=0, description="Weight of its share: twice the weight gets twice the tokens.")
    waiting_limit: int = Field(
        default=0, ge=0, description="Most of its requests that may wait; further ones are refused.  0: no limit."
    )
    running_limit: int = Field(
        default=0, ge=0, description="Most of its requests that run at the same time.  0: no limit."
    )
    at_running_limit: Literal["wait", "refuse"] = Field(
        default="wait",
        description="What further requests do at running_limit: wait their turn, at most waiting_limit of them, or get "
        "TENANT_LIMIT at once.",
    )
    tokens_per_minute: int = Field(
        default=0, ge=0, description="Prompt and output tokens a minute; beyond that it is refused.  0: no limit."
    )


class SharesSection(Section):
    """How tokens count for the shares of tenants."""

    prompt_token_weight: float = Field(default=1.0, ge=0, description="What a prompt token counts.")
    output_token_weight: float = Field(default=2.0, gt=0, description="What an output token counts.")
