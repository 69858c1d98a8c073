"""Requests that need no client."""

from __future__ import annotations

from pydantic import Field

from sage_common.configuration import Section


class DetachedSection(Section):
    """Detached work: requests that need no client; only with a journal."""

    default_deadline_s: float = Field(
        default=86_400.0, gt=0, description="Deadline in seconds after arrival of detached requests that set none."
    )
    keep_result_s: float = Field(
        default=86_400.0, gt=0, description="Seconds after its end that a result is kept, of requests that do not say."
    )
    keep_result_limit_s: float = Field(
        default=604_800.0, gt=0, description="Most seconds for which a request may ask to have its result kept."
    )
    tenant_requests: int = Field(
        default=10_000, ge=1, description="Most detached requests of one tenant, those with results included."
    )
    tenant_bytes: int = Field(
        default=2**30, ge=1, description="Most bytes of one tenant's detached requests: prompts, outputs, results."
    )
    requests: int = Field(default=100_000, ge=1, description="Most detached requests of all tenants.")
    checkpoint_tokens: int = Field(
        default=64, ge=1, description="Output tokens of a request after which they are written down."
    )
    checkpoint_s: float = Field(
        default=1.0, gt=0, description="Seconds after which new output of a request is written down."
    )
