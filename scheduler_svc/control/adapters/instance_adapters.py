"""The adapters of a model on one instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource


class AdapterState(Enum):
    """State of an adapter on an instance."""

    ABSENT = "absent"  # other adapters have the slots, or the instance is not ready
    LOADING = "loading"  # it is being loaded, or waits for its slot
    LOADED = "loaded"  # requests run with it
    FAILED = "failed"  # it could not be loaded
    UNLOADING = "unloading"  # attempts still use it, and then it is unloaded
    UNSUPPORTED = "unsupported"  # the executor or its engine takes none


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterReport:
    """An executor's report of one adapter."""

    source: AdapterSource
    state: AdapterState
    reason: str = ""  # in words
    weights: str = ""  # with LOADED: fingerprint
    rank: int = 0  # with LOADED


@dataclass(slots=True, kw_only=True)
class InstanceAdapters:
    """Holds what an instance was told to hold, what its executor reported, and what failed to load."""

    instance_id: str
    model: str
    engine_start_id: str
    link: ExecutorLink
    supports: bool  # the executor knows the command
    wanted: tuple[AdapterSource, ...] | None = None  # as told in this session; None: nothing was
    number: int = 0  # of the latest order
    told_at: dict[str, int] = field(default_factory=dict)  # number of the order since which each is wanted, by name
    reports: Mapping[str, AdapterReport] = field(default_factory=dict)  # the latest, by name
    failed: dict[str, AdapterReport] = field(default_factory=dict)  # since the engine's start, by name
    had: dict[str, str] = field(default_factory=dict)  # fingerprint that each was reported with last, by name

    def take(self, number: int, reports: Sequence[AdapterReport]) -> None:
        """Take a report of all adapters; remember those that failed to load, also after they are not wanted.

        ``number``: of the latest order that the executor knew.  What it says of an adapter that a later order wants
        anew does not count: it may be unloading it.
        """
        self.had |= {each.source.name: each.weights for each in reports if each.weights}
        current = [each for each in reports if number >= self.told_at.get(each.source.name, 0)]
        self.reports = {each.source.name: each for each in current}
        for each in current:
            if each.state is AdapterState.FAILED and self.is_told(each.source):
                self.failed[each.source.name] = each

    def want(self, sources: Sequence[AdapterSource]) -> None:
        """Tell the executor what its engine is to hold, if that changed."""
        if self.wanted == tuple(sources):
            return
        before, self.wanted = {each: self.told_at[each.name] for each in self.wanted or ()}, tuple(sources)
        self.number += 1
        self.told_at = {each.name: before.get(each, self.number) for each in sources}
        self.reports = {n: r for n, r in self.reports.items() if self.told_at.get(n) != self.number}
        self.link.want_adapters(self.number, self.wanted)

    def counts(self, started_with: Collection[str], registered: Container[str]) -> Counter[AdapterState]:
        """Count the adapters by state.

        ``started_with``: those from the engine's start.  ``registered``: names in the registry; others' failures are
        of no interest any more.
        """
        states = dict.fromkeys(started_with, AdapterState.LOADED)
        states |= {each.name: AdapterState.LOADING for each in self.wanted or ()}
        states |= {name: report.state for name, report in self.reports.items()}
        states |= {name: AdapterState.FAILED for name in self.failed if name in registered}
        return Counter(states.values())

    def is_told(self, source: AdapterSource) -> bool:
        """Return whether the executor was told to hold an adapter."""
        return source in (self.wanted or ())

    def holds(self, source: AdapterSource) -> bool:
        """Return whether the engine serves an adapter, and is to go on with it."""
        found = self.reports.get(source.name)
        loaded = found is not None and found.source == source and found.state is AdapterState.LOADED
        return loaded and self.is_told(source)
