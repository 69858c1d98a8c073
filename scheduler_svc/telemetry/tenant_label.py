"""The label of a tenant: callers may name as many tenants as they like, metrics name those of the configuration."""

from __future__ import annotations

from collections.abc import Container

OTHER = "(other)"


def tenant_label(tenant: str, named: Container[str]) -> str:
    """Return the tenant if it is one of those that are named, else OTHER."""
    return tenant if tenant in named else OTHER
