"""The governor that chooses among the built-in policies by the load, without flapping."""

from __future__ import annotations

from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from scheduler_svc.domain.policies.governor import Signals, Wish


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """A threshold with hysteresis: reached at ``enter`` and, once its policy is followed, held down to ``leave``."""

    enter: float
    leave: float

    def holds(self, value: float, *, followed: bool) -> bool:
        """Whether the value is in the band.  ``followed``: whether the band's policy is followed now."""
        return value >= (self.leave if followed else self.enter)


PRICED = Band(enter=0.2, leave=0.1)  # dearest price over cheapest, less 1
SPARE = Band(enter=0.35, leave=0.1)  # share of what the instances can serve that does not arrive
KEPT = Band(enter=0.98, leave=0.95)  # share of placements predicted to meet their targets
TARGETED = Band(enter=0.2, leave=0.1)  # share of arrivals that state a target
#: Seconds for which ``cost_optimized`` must suit the load before it is followed: the lull between two bursts looks
#: like a light load.
CALM_S = 60.0
BACKGROUND = Band(enter=0.1, leave=0.02)  # share of arrivals of class BACKGROUND
SPREAD = Band(enter=0.2, leave=0.1)  # share of arrivals outside the most frequent class


@mypyc_attr(allow_interpreted_subclasses=True)  # policies of others may extend it
class Adaptive:
    """Chooses the policy to follow by the load of one model.

    It is the first that applies:

    - ``cost_optimized``: prices differ, the load leaves much to spare, and targets are predicted to be met;
    - ``slo_aware``: many state targets;
    - ``priority``: requests are of several classes and state no targets, or some are of class BACKGROUND, for which the
      first of another class must not wait;
    - ``fifo`` otherwise.

    Every threshold is a band.  The first wish is followed at once, and so is the one that BACKGROUND requests cause.
    Any other must last ``confirm_s`` before it is followed, one for ``cost_optimized`` at least ``CALM_S``.  After a
    switch the policy stays for ``dwell_s``; so there are at most 2 + t / dwell_s switches in t seconds, whatever the
    load does.
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
        begins = not self._wanted
        if wish.policy != self._wanted:
            self._wanted = wish.policy
            self._wanted_since = now
        if wish.policy == current:
            return None
        if begins:
            return wish
        confirm_s = self._confirmation_s(wish, signals)
        if now - self._wanted_since < confirm_s or now - self._switched_at < self._dwell_s:
            return None
        self._switched_at = now
        return wish

    def _confirmation_s(self, wish: Wish, signals: Signals) -> float:
        """Return for how many seconds a wish must last before it is followed."""
        if wish.policy == "priority" and BACKGROUND.holds(signals.background_share, followed=False):
            return 0.0
        return max(self._confirm_s, CALM_S) if wish.policy == "cost_optimized" else self._confirm_s


def wanted(s: Signals, current: str) -> Wish:
    """Say which policy suits the signals, given the one that is followed."""
    cost = current == "cost_optimized"
    spare, kept = 1 - s.load, 1 - s.miss_share
    if (
        PRICED.holds(s.price_spread, followed=cost)
        and SPARE.holds(spare, followed=cost)
        and KEPT.holds(kept, followed=cost)
    ):
        return Wish(
            policy="cost_optimized",
            reason=f"{s.load:.0%} of what the instances can serve arrives, {s.miss_share:.0%} of those placed are "
            f"predicted to miss targets, prices differ by {s.price_spread:.0%}",
        )
    if TARGETED.holds(s.targeted_share, followed=current == "slo_aware"):
        return Wish(policy="slo_aware", reason=f"{s.targeted_share:.0%} of arrivals state targets, {_load(s)}")
    if SPREAD.holds(s.class_spread, followed=current == "priority"):
        reason = f"{s.class_spread:.0%} of arrivals are outside the commonest class, {_load(s)}"
        return Wish(policy="priority", reason=reason)
    if BACKGROUND.holds(s.background_share, followed=current == "priority"):
        share = f"{s.background_share:.0%} of the requests that come or wait"
        reason = f"{share} are BACKGROUND, for which no other waits, {_load(s)}"
        return Wish(policy="priority", reason=reason)
    return Wish(policy="fifo", reason=f"few state targets or classes, {_load(s)}")


def _load(s: Signals) -> str:
    return f"{s.load:.0%} of what the instances can serve arrives"
