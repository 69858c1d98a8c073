"""What went wrong with a request's attempts so far."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Setbacks:
    """Counts what went wrong with a request's attempts, as far as it decides how the request goes on."""

    failures: int = 0  # attempts that failed without a new token; moves without fault do not count
    failed_on: frozenset[str] = frozenset()  # instances on which attempts failed
    leases_expired: int = 0  # decode legs that came too late for their KV
    whole: bool = False  # a handoff failed: the request is not split again
    deaths: list[str] = field(default_factory=list)  # instances whose engine died while it ran the request
    tokens_before_death: int = 0  # most output tokens that an attempt delivered before such a death
    alone: bool = False  # quarantined: it runs on an instance that runs nothing else
