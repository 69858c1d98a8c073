"""Policies with another setting beside them, named ``policy/variant``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.settings import SchedulerSettings

#: Splits every request where a pair of instances can take it, whatever is predicted.
SPLIT_ALWAYS = "split_always"
#: Splits none.
SPLIT_NEVER = "split_never"
#: Places without credit for cached prefixes.
PREFIX_BLIND = "prefix_blind"


class UnknownVariant(ValueError):
    """No variant has this name, or the scheduler does not have what it changes."""


def _split_always(settings: SchedulerSettings) -> SchedulerSettings:
    return replace(settings, pd=PdSettings(mode=SplitMode.ALWAYS))


def _split_never(settings: SchedulerSettings) -> SchedulerSettings:
    return replace(settings, pd=PdSettings(mode=SplitMode.NEVER))


def _prefix_blind(settings: SchedulerSettings) -> SchedulerSettings:
    prefix: Any = getattr(settings, "prefix", None)
    if prefix is None:
        raise UnknownVariant(f"{PREFIX_BLIND}: the scheduler does not follow prefix caches")
    changes: dict[str, Any] = {"prefix": replace(prefix, aware=False)}
    return replace(settings, **changes)


VARIANTS: Mapping[str, Callable[[SchedulerSettings], SchedulerSettings]] = {
    SPLIT_ALWAYS: _split_always,
    SPLIT_NEVER: _split_never,
    PREFIX_BLIND: _prefix_blind,
}


def policy_of(name: str) -> str:
    """Return the policy's name without its variant."""
    return name.partition("/")[0]


def with_variant(settings: SchedulerSettings, name: str) -> SchedulerSettings:
    """Return the settings of ``policy`` or ``policy/variant``.  Raises UnknownVariant."""
    policy, _, variant = name.partition("/")
    settings = replace(settings, policy=policy)
    if not variant:
        return settings
    if variant not in VARIANTS:
        raise UnknownVariant(f"no variant {variant!r}; there are: {', '.join(VARIANTS)}")
    return VARIANTS[variant](settings)
