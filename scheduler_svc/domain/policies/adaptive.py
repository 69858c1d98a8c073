"""The governor that chooses among the built-in policies by the load, without flapping."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.policies.governor import Signals, Wish


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """A threshold with hysteresis: reached at ``enter`` and, once its policy is followed, held down to ``leave``."""

    enter: float
    leave: float

    def holds(self, value: float, *, followed: bool) -> bool:
        """Whether the value is in the band.  ``followed``: whether the band's policy is followed now."""
        return value >= (self.leave if followed else self.enter)


TARGETED = Band(enter=0.2, leave=0.1)  # share of arrivals that state a target
MISSES = Band(enter=0.1, leave=0.03)  # share of those placements predicted to miss
PRESSED = Band(enter=0.5, leave=0.1)  # waiting requests per slot
SPREAD = Band(enter=0.2, leave=0.1)  # share of arrivals outside the most frequent class
PRICED = Band(enter=0.2, leave=0.1)  # dearest price over cheapest, less 1
SLACK = Band(enter=0.5, leave=0.25)  # share of slots free


class Adaptive:
    """Chooses the policy to follow by the load.

    It is the first that applies:

    - ``slo_aware``: many state targets, and they are predicted to be missed or requests queue up;
    - ``priority``: requests of several classes queue up;
    - ``cost_optimized``: nothing queues, much is free, and prices differ;
    - ``fifo`` otherwise.

    Every threshold is a band.  A wish must last ``confirm_s`` before it is followed, and after a switch the policy
    stays for ``dwell_s``; so there are at most 1 + t / dwell_s switches in t seconds, whatever the load does.
    """

    first = "fifo"
    follows = ("fifo", "priority", "slo_aware", "cost_optimized")

    def __init__(self, *, confirm_s: float, dwell_s: float) -> None:
        self._confirm_s = confirm_s
        self._dwell_s = dwell_s
        self._wanted = ""
        self._wanted_since = 0.0
        self._switched_at = float("-inf")

    def decide(self, signals: Signals, current: str, now: float) -> Wish | None:
        """Say which policy to follow, once it has suited the load for ``confirm_s``; None to stay with ``current``."""
        wish = wanted(signals, current)
        if wish.policy != self._wanted:
            self._wanted = wish.policy
            self._wanted_since = now
        if wish.policy == current or now - self._wanted_since < self._confirm_s:
            return None
        if now - self._switched_at < self._dwell_s:
            return None
        self._switched_at = now
        return wish


def wanted(s: Signals, current: str) -> Wish:
    """Say which policy suits the signals, given the one that is followed."""
    slo = current == "slo_aware"
    pressed = PRESSED.holds(s.pressure, followed=current in ("slo_aware", "priority"))
    if TARGETED.holds(s.targeted_share, followed=slo) and (pressed or MISSES.holds(s.miss_share, followed=slo)):
        return Wish(
            policy="slo_aware",
            reason=f"{s.targeted_share:.0%} of arrivals state targets, {s.miss_share:.0%} of those placed are "
            f"predicted to miss, {s.pressure:.2f} waiting per slot",
        )
    if pressed and SPREAD.holds(s.class_spread, followed=current == "priority"):
        return Wish(
            policy="priority",
            reason=f"{s.pressure:.2f} waiting per slot, {s.class_spread:.0%} of arrivals outside the commonest class",
        )
    cost = current == "cost_optimized"
    if not pressed and SLACK.holds(1 - s.utilisation, followed=cost) and PRICED.holds(s.price_spread, followed=cost):
        return Wish(
            policy="cost_optimized",
            reason=f"{1 - s.utilisation:.0%} of slots free, prices differ by {s.price_spread:.0%}",
        )
    return Wish(policy="fifo", reason=f"{s.pressure:.2f} waiting per slot and nothing that asks for another order")
