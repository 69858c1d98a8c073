"""Prefill/decode separation: when requests are split, and which pairs of instances can hand over."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from scheduler_svc.domain.entrance.parts import Parts
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.pairs import Pair
from scheduler_svc.domain.pd.settings import PdSettings
from scheduler_svc.domain.placement.split_planner import SplitCounts
from scheduler_svc.domain.role_change import RoleChange
from scheduler_svc.domain.roles.side import Side


class Pairs(Parts):
    """Keeps the pairs of prefill and decode instances."""

    @property
    def pd_settings(self) -> PdSettings:
        """When requests are split into a prefill leg and a decode leg."""
        return self._splits.settings

    def set_pd(self, settings: PdSettings) -> None:
        """Change when requests are split from now on, and form the pairs of the engines that run now."""
        self._splits.settings = settings
        self.renew_pairs()

    def renew_pairs(self) -> None:
        """Form the pairs of the engines that run now.

        An instance that is not READY for a while keeps its pairs, because its engine still runs.
        """
        self._splits.renew(self._registry)

    def pairs(self) -> list[Pair]:
        """Return the pairs of a prefill and a decode instance.  While splitting is off they may be out of date."""
        return list(self._splits.pairs)

    def pairs_due(self, now: float) -> list[Pair]:
        """Return the pairs to warm up now."""
        return self._splits.pairs.due(now)

    def pair_between(self, prefill_instance: str, decode_instance: str) -> Pair | None:
        """Return the pair of these two instances; None if they form none."""
        return self._splits.pairs.find(prefill_instance, decode_instance)

    def warm_up_started(self, pair: Pair) -> None:
        """Note that a warm-up of the pair is under way."""
        self._splits.pairs.warming(pair)

    def warm_up_failed(self, pair: Pair, reason: str, now: float) -> None:
        """Leave the pair unused until a later warm-up works; report that one with ``handed_over``."""
        self._splits.pairs.failed(pair, reason, now)

    def handed_over(self, pair: Pair | None, handoff_s: float) -> None:
        """Note a handoff that worked, in seconds from prefill's end to decode's first token.  The pair is usable."""
        if pair is not None:
            self._splits.pairs.worked(pair, handoff_s)

    def handoff_failed(self, pair: Pair | None, cause: Fallback, reason: str, now: float) -> None:
        """Count a failed handoff of a request; the pair is not used until a warm-up works.

        ``pair``: None where neither instance is to blame.
        """
        self._splits.count_fallback(cause)
        if pair is not None:
            self._splits.pairs.failed(pair, reason, now)

    def split_counts(self) -> SplitCounts:
        """Return counts since the start: requests that were split, and fallbacks by cause."""
        return self._splits.counts()

    def pd_conditions(self) -> list[str]:
        """Say what keeps splitting from working; empty when all is well or splitting is off."""
        return [condition for pool in self._registry.pools() for condition in self._splits.conditions(pool)]

    def balance_roles(self, pinned: Container[str], now: float) -> list[RoleChange]:
        """Change the roles of instances as the pressures of prefill and decode ask for; return what changed.

        Call it every ``RoleSettings.interval_s``.  While splitting is off, instances go back to the roles of their
        executors.  ``pinned``: ids of instances that an operator gave their role.
        """
        if not self.settings.roles.automatic:
            return []
        look = self._roles.look if self.pd_settings.enabled else self._roles.rest
        changes = look(pinned, now)
        for change in changes:
            self._registry.set_role(change.instance_id, change.role, change)
        if changes:
            self.renew_pairs()
        return changes

    def keep_role(self, change: RoleChange) -> None:
        """Give an instance the role that an earlier scheduler gave it by itself.  Raises InstanceNotFound."""
        self._registry.set_role(change.instance_id, change.role, change)

    @property
    def sides(self) -> Mapping[str, tuple[Side, Side]]:
        """The prefill and the decode side of each model as of the last call of ``balance_roles``."""
        return self._roles.sides

    @property
    def role_changes(self) -> Sequence[RoleChange]:
        """The latest changes of roles that the scheduler decided by itself, newest first."""
        return self._roles.recent
