"""The policy that orders and places requests now, and the switches that led to it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from scheduler_svc.domain.policies.builtin import make_fifo
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.policies.policy import Policy, PolicySwitch
from scheduler_svc.domain.settings import SchedulerSettings

FALLBACK = "fifo"
"""The policy that is followed when the code of another one fails."""


class PolicyInForce:
    """Holds the policy an operator chose and, where that policy has a governor, the policy it follows now."""

    def __init__(self, catalogue: PolicyCatalogue, settings: SchedulerSettings) -> None:
        """Start with ``settings.policy``.  Raises UnknownPolicy."""
        self._catalogue = catalogue
        self._settings = settings
        self._switches: deque[PolicySwitch] = deque(maxlen=settings.max_switches)  # oldest first
        self._evaluate_at = float("-inf")
        self._named = catalogue.make(settings.policy, settings)
        self._chosen = settings.policy  # its name in the catalogue, which may differ from ``Policy.name``
        self.acting = self._first_acting(self._named)  # what orders and places requests

    @property
    def name(self) -> str:
        """Name of the policy that an operator chose."""
        return self._named.name

    @property
    def delegate(self) -> str:
        """Name of the policy that a governing policy follows now; empty where the chosen policy decides itself."""
        return self.acting.name if self._named.governor is not None else ""

    @property
    def switches(self) -> tuple[PolicySwitch, ...]:
        """The latest switches, at most ``max_switches``, oldest first."""
        return tuple(self._switches)

    def summaries(self) -> dict[str, str]:
        """One line about each policy of the catalogue, by name."""
        return self._catalogue.summaries(self._settings)

    def choose(self, name: str, now: float, reason: str) -> bool:
        """Put a policy in force.  False if it is in force already: then nothing changes.  Raises UnknownPolicy."""
        if name == self._chosen:
            return False
        previous = self._named.name
        named = self._catalogue.make(name, self._settings)
        self._named, self._chosen = named, name
        self._act(self._first_acting(named), now)
        self._switches.append(PolicySwitch(from_policy=previous, to_policy=name, reason=reason, at=now))
        return True

    def fall_back(self, error: Exception, now: float) -> PolicySwitch | None:
        """Put fifo in force, because the code of the policy in force raised ``error``; None if fifo raised it."""
        failed = self.acting.name
        if self._chosen == FALLBACK:
            return None
        self._named, self._chosen = make_fifo(self._settings), FALLBACK
        self._act(self._named, now)
        reason = f"the policy {failed!r} failed: {type(error).__name__}: {error}"
        switch = PolicySwitch(from_policy=failed, to_policy=self._named.name, reason=reason, at=now)
        self._switches.append(switch)
        return switch

    def due(self, now: float) -> bool:
        """Whether a governor has to decide now: at most every ``adaptive_interval_s``."""
        return self._named.governor is not None and now >= self._evaluate_at

    def reconsider(self, signals: Signals, now: float) -> PolicySwitch | None:
        """Let the governor decide which policy to follow, and follow it.  Returns the switch; None if there is none."""
        governor = self._named.governor
        if governor is None:
            return None
        self._evaluate_at = now + self._settings.adaptive_interval_s
        wish = governor.decide(signals, self.acting.name, now)
        if wish is None or wish.policy == self.acting.name:
            return None
        switch = PolicySwitch(from_policy=self.acting.name, to_policy=wish.policy, reason=wish.reason, at=now)
        self._act(self._make_acting(self._named, wish.policy), now)
        self._switches.append(switch)
        return switch

    def _first_acting(self, named: Policy) -> Policy:
        return self._make_acting(named, named.governor.first) if named.governor is not None else named

    def _make_acting(self, named: Policy, name: str) -> Policy:
        return replace(self._catalogue.make(name, self._settings), governed_by=named.name)

    def _act(self, acting: Policy, now: float) -> None:
        self.acting = acting
        self._evaluate_at = now
