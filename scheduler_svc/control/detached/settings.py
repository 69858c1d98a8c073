"""Settings of detached work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DetachedSettings:
    """Bounds of detached work, and how often its output is written down."""

    default_deadline_s: float = 86_400.0  # of requests that set none
    keep_result_s: float = 86_400.0  # after the end, of requests that do not say
    keep_result_limit_s: float = 604_800.0  # most that a request may ask for
    tenant_requests: int = 10_000  # of one tenant, ended ones included
    tenant_bytes: int = 2**30  # of one tenant: contents, outputs, results
    requests: int = 100_000  # of all tenants
    checkpoint_tokens: int = 64  # output tokens after which they are written down
    checkpoint_s: float = 1.0  # seconds after which they are
