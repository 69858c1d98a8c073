"""The policy that orders and places requests now, and the switches that led to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, replace

from scheduler_svc.domain.policies.builtin import make_fifo
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.governor import Governor, Signals
from scheduler_svc.domain.policies.policy import Policy, PolicySwitch
from scheduler_svc.domain.settings import SchedulerSettings

FALLBACK = "fifo"
"""The policy that is followed when the code of another one fails."""


@dataclass(slots=True)
class _Governed:
    """What the governor of one model follows."""

    governor: Governor
    acting: Policy
    decided: bool = False


class PolicyInForce:
    """Holds the policy an operator chose and, where that policy has a governor, the policy each model follows now."""

    def __init__(self, catalogue: PolicyCatalogue, settings: SchedulerSettings) -> None:
        """Start with ``settings.policy``.  Raises UnknownPolicy."""
        self._catalogue = catalogue
        self._settings = settings
        self._switches: deque[PolicySwitch] = deque(maxlen=settings.max_switches)  # oldest first
        self._evaluate_at = float("-inf")
        self._named = catalogue.make(settings.policy, settings)
        self._chosen = settings.policy  # its name in the catalogue, which may differ from ``Policy.name``
        self._governed: dict[str, _Governed] = {}  # by model, where the chosen policy has a governor

    @property
    def name(self) -> str:
        """Name of the policy that an operator chose."""
        return self._named.name

    @property
    def delegate(self) -> str:
        """Name of the policy that a governing policy follows now; several, by name, where models differ.

        Empty where the chosen policy decides itself.
        """
        governor = self._named.governor
        if governor is None:
            return ""
        return ", ".join(sorted({each.acting.name for each in self._governed.values()})) or governor.first

    @property
    def switches(self) -> tuple[PolicySwitch, ...]:
        """The latest switches, at most ``max_switches``, oldest first."""
        return tuple(self._switches)

    def summaries(self) -> dict[str, str]:
        """One line about each policy of the catalogue, by name."""
        return self._catalogue.summaries(self._settings)

    def acting(self, model: str) -> Policy:
        """Return the policy that orders and places the requests of a model."""
        return self._named if self._named.governor is None else self._of(model).acting

    def warnings(self) -> dict[str, str]:
        """Return what to know before a policy is put in force, by name; only of policies with a warning."""
        return self._catalogue.warnings(self._settings)

    @property
    def warning(self) -> str:
        """The warning of the policy that an operator chose; empty if it has none."""
        return self._named.warning

    def choose(self, name: str, now: float, reason: str) -> bool:
        """Put a policy in force.  False if it is in force already: then nothing changes.  Raises UnknownPolicy."""
        if name == self._chosen:
            return False
        previous = self._named.name
        named = self._catalogue.make(name, self._settings)
        self._named, self._chosen = named, name
        self._governed.clear()
        self._evaluate_at = now
        self._switches.append(PolicySwitch(from_policy=previous, to_policy=name, reason=reason, at=now))
        return True

    def fall_back(self, error: Exception, now: float) -> PolicySwitch | None:
        """Put fifo in force, because the code of the policy in force raised ``error``; None if fifo raised it."""
        failed = self._named.name
        if self._chosen == FALLBACK:
            return None
        self._named, self._chosen = make_fifo(self._settings), FALLBACK
        self._governed.clear()
        # Everyone may read why the policy changed, and the error's text may be about one tenant's request.
        reason = f"the policy {failed!r} failed: {type(error).__name__}; the scheduler's log has the cause"
        switch = PolicySwitch(from_policy=failed, to_policy=self._named.name, reason=reason, at=now)
        self._switches.append(switch)
        return switch

    def due(self, now: float) -> bool:
        """Whether the governors have to decide now: at most every ``adaptive_interval_s``."""
        if self._named.governor is None or now < self._evaluate_at:
            return False
        self._evaluate_at = now + self._settings.adaptive_interval_s
        return True

    def begins(self, model: str) -> bool:
        """Whether a governor has not decided about this model yet."""
        return self._named.governor is not None and not self._of(model).decided

    def reconsider(self, model: str, signals: Signals, now: float) -> PolicySwitch | None:
        """Let a model's governor decide which policy to follow.  Returns the switch; None if there is none."""
        if self._named.governor is None:
            return None
        governed = self._of(model)
        governed.decided = True
        acting = governed.acting
        wish = governed.governor.decide(signals, acting.name, now)
        if wish is None or wish.policy == acting.name:
            return None
        reason = f"model {model!r}: {wish.reason}"
        switch = PolicySwitch(from_policy=acting.name, to_policy=wish.policy, reason=reason, at=now)
        governed.acting = self._make_acting(wish.policy)
        self._switches.append(switch)
        return switch

    def forget(self, models: Container[str]) -> None:
        """Forget what is followed for all models but these."""
        for model in [each for each in self._governed if each not in models]:
            del self._governed[model]

    def _of(self, model: str) -> _Governed:
        governed = self._governed.get(model)
        if governed is None:
            governor = self._catalogue.make(self._chosen, self._settings).governor
            assert governor is not None, "asked only where the chosen policy has a governor"
            governed = self._governed[model] = _Governed(governor, self._make_acting(governor.first))
        return governed

    def _make_acting(self, name: str) -> Policy:
        return replace(self._catalogue.make(name, self._settings), governed_by=self._named.name)
