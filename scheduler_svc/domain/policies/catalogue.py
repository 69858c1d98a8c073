"""Policies by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from scheduler_svc.domain.errors import UnknownPolicy
from scheduler_svc.domain.policies.baselines.table import BASELINES
from scheduler_svc.domain.policies.builtin import BUILTIN, PolicyFactory
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings

#: Where other distributions offer policies: name = "module:factory", the factory being a PolicyFactory.
ENTRY_POINT_GROUP = "sage.policies"

#: The policies of this project: the built-in ones and those for comparison.
OWN: Mapping[str, PolicyFactory] = {**BUILTIN, **BASELINES}


class PolicyLoadError(Exception):
    """A distribution offers a policy that cannot be loaded; the message names both."""


class PolicyCatalogue:
    """Makes policies by name: the built-in ones, those for comparison, and those that plug-ins add."""

    def __init__(self, factories: Mapping[str, PolicyFactory] = OWN) -> None:
        self._factories = dict(factories)

    @classmethod
    def with_plugins(cls, plugins: Iterable[EntryPoint] | None = None) -> PolicyCatalogue:
        """Make a catalogue of the project's own policies and those that other distributions offer.

        ``plugins``: entry points to load instead of the installed ones.  Raises PolicyLoadError if one of them cannot
        be loaded, or if its name is taken.
        """
        catalogue = cls()
        for plugin in entry_points(group=ENTRY_POINT_GROUP) if plugins is None else plugins:
            catalogue._load(plugin)
        return catalogue

    def _load(self, plugin: EntryPoint) -> None:
        offered_by = plugin.dist.name if plugin.dist is not None else plugin.value
        if plugin.name in self._factories:
            raise PolicyLoadError(f"policy {plugin.name!r} of {offered_by}: the name is taken")
        try:
            factory = plugin.load()
        except Exception as e:
            raise PolicyLoadError(f"policy {plugin.name!r} of {offered_by} does not load: {e}") from e
        self.add(plugin.name, factory)

    def add(self, name: str, factory: PolicyFactory) -> None:
        """Offer a policy under a name.  Raises PolicyLoadError if the name is taken or ``factory`` not callable."""
        if name in self._factories:
            raise PolicyLoadError(f"policy {name!r}: the name is taken")
        if not callable(factory):
            raise PolicyLoadError(f"policy {name!r}: {factory!r} is not a factory")
        self._factories[name] = factory

    def names(self) -> tuple[str, ...]:
        """Return the names of all policies, sorted."""
        return tuple(sorted(self._factories))

    def __contains__(self, name: str) -> bool:
        return name in self._factories

    def make(self, name: str, settings: SchedulerSettings) -> Policy:
        """Make the policy of this name.  Raises UnknownPolicy."""
        factory = self._factories.get(name)
        if factory is None:
            raise UnknownPolicy(name, self._factories)
        return factory(settings)

    def summaries(self, settings: SchedulerSettings) -> dict[str, str]:
        """Return one line about each policy, by name."""
        return {name: self.make(name, settings).summary for name in self.names()}

    def warnings(self, settings: SchedulerSettings) -> dict[str, str]:
        """Return what to know before a policy is put in force, by name; only of policies with a warning."""
        found = {name: self.make(name, settings).warning for name in self.names()}
        return {name: warning for name, warning in found.items() if warning}
