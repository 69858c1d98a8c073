"""A policy is an ordering and a placement objective; the catalogue knows them by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from scheduler_svc.domain.adaptive import Adaptive
from scheduler_svc.domain.errors import UnknownPolicy
from scheduler_svc.domain.ordering.base import Ordering
from scheduler_svc.domain.ordering.cost import CheapestFirst
from scheduler_svc.domain.ordering.fifo import Fifo
from scheduler_svc.domain.ordering.priority import ByClass
from scheduler_svc.domain.ordering.slo import LeastSlack
from scheduler_svc.domain.placement.cheapest import CheapestInTime
from scheduler_svc.domain.placement.objective import Objective
from scheduler_svc.domain.placement.soonest import ShortestStart, SoonestByClass
from scheduler_svc.domain.placement.targets_met import FullestThatMeets
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.signals import Signals
from scheduler_svc.domain.wish import Wish

#: Where other distributions offer policies: name = "module:factory", the factory being a PolicyFactory.
ENTRY_POINT_GROUP = "sage.policies"


class Governor(Protocol):
    """Chooses among policies while the scheduler runs."""

    #: the policy to follow at first
    @property
    def first(self) -> str: ...

    #: all it may ever choose; the longest of their delays bounds how far a request is overtaken
    @property
    def follows(self) -> tuple[str, ...]: ...

    def decide(self, signals: Signals, current: str, now: float) -> Wish | None:
        """Called at most every ``adaptive_interval_s``.  None to stay with ``current``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    name: str
    summary: str  # one line
    ordering: Ordering
    objective: Objective
    engine_classes: bool = True  # whether a request's class goes to the engine as its priority
    governor: Governor | None = None  # then ordering and objective are those of the policies it chooses
    governed_by: str = ""  # name of the policy whose governor chose this one


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySwitch:
    from_policy: str
    to_policy: str
    reason: str
    at: float


PolicyFactory = Callable[[SchedulerSettings], Policy]


class PolicyLoadError(Exception):
    """A distribution offers a policy that cannot be had; names both."""


def make_fifo(settings: SchedulerSettings) -> Policy:
    return Policy(
        name="fifo",
        summary="first come, first served; to the instance predicted to start it first",
        ordering=Fifo(),
        objective=ShortestStart(),
        engine_classes=False,
    )


def make_priority(settings: SchedulerSettings) -> Policy:
    return Policy(
        name="priority",
        summary=f"by class, {settings.ageing_s_per_class:g} s of waiting making up for one; "
        "a slot per instance kept for CRITICAL",
        ordering=ByClass(settings.ageing_s_per_class),
        objective=SoonestByClass(),
    )


def make_slo_aware(settings: SchedulerSettings) -> Policy:
    return Policy(
        name="slo_aware",
        summary="least slack to its target first; to the fullest instance predicted to meet it",
        ordering=LeastSlack(
            settings.default_targets, late_delay_s=settings.late_delay_s, max_slack_s=settings.max_slack_s
        ),
        objective=FullestThatMeets(settings.default_targets),
    )


def make_cost_optimized(settings: SchedulerSettings) -> Policy:
    return Policy(
        name="cost_optimized",
        summary="by class, the cheapest to serve first; to the cheapest instance that meets deadline and budget",
        ordering=CheapestFirst(ageing_s_per_class=settings.ageing_s_per_class, delay_cap_s=settings.cost_delay_cap_s),
        objective=CheapestInTime(),
    )


def make_adaptive(settings: SchedulerSettings) -> Policy:
    first = make_fifo(settings)
    return Policy(
        name="adaptive",
        summary="follows fifo, priority, slo_aware or cost_optimized, whichever suits the load; does not flap",
        ordering=first.ordering,
        objective=first.objective,
        engine_classes=first.engine_classes,
        governor=Adaptive(confirm_s=settings.adaptive_confirm_s, dwell_s=settings.adaptive_dwell_s),
    )


BUILTIN: Mapping[str, PolicyFactory] = {
    "fifo": make_fifo,
    "priority": make_priority,
    "slo_aware": make_slo_aware,
    "cost_optimized": make_cost_optimized,
    "adaptive": make_adaptive,
}


class PolicyCatalogue:
    """Policies by name."""

    def __init__(self, factories: Mapping[str, PolicyFactory] = BUILTIN) -> None:
        self._factories = dict(factories)

    @classmethod
    def with_plugins(cls, plugins: Iterable[EntryPoint] | None = None) -> PolicyCatalogue:
        """The built-in ones and those other distributions offer.

        Raises PolicyLoadError: a policy that was installed and cannot be loaded is not left out silently, and none
        takes another's name.
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
        """Raises PolicyLoadError."""
        if name in self._factories:
            raise PolicyLoadError(f"policy {name!r}: the name is taken")
        if not callable(factory):
            raise PolicyLoadError(f"policy {name!r}: {factory!r} is not a factory")
        self._factories[name] = factory

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._factories))

    def __contains__(self, name: str) -> bool:
        return name in self._factories

    def make(self, name: str, settings: SchedulerSettings) -> Policy:
        """Raises UnknownPolicy."""
        factory = self._factories.get(name)
        if factory is None:
            raise UnknownPolicy(name, self._factories)
        return factory(settings)

    def summaries(self, settings: SchedulerSettings) -> dict[str, str]:
        """One line per policy, by name."""
        return {name: self.make(name, settings).summary for name in self.names()}
