"""Picks the lowest score exactly, without a tolerance for noise."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.objectives.picker import pick


def least(accounts: Sequence[Account], scores: Sequence[float]) -> int:
    """Return the index of the lowest score; among equal ones the instance with the fewest live requests."""
    return pick(accounts, scores, tolerance=0.0, relative=0.0)
