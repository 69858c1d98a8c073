"""Where an attempt of a request was placed."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.decision import Decision


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A decision, and the output position that its attempt starts at."""

    decision: Decision
    from_token: int
