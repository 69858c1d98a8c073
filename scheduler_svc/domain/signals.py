"""What the load looks like, as far as the choice of a policy depends on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """A snapshot."""

    pressure: float  # waiting requests per slot of the fleet
    utilisation: float  # share of slots taken
    miss_share: float  # of recent placements with stated targets: predicted to miss one
    targeted_share: float  # of recent arrivals: state a target
    class_spread: float  # of recent arrivals: not of the most frequent class
    price_spread: float  # dearest price per hour over cheapest, less 1; 0 where all are equal or free
