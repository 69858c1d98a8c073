"""Adds and removes adapters at run time, and has the instances of their model hold them."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler_svc.control.adapters.adapter_use import AdapterUses
from scheduler_svc.control.adapters.instance_adapters import AdapterReport, AdapterState, InstanceAdapters
from scheduler_svc.control.adapters.registry import AdapterRegistry
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource, RegisteredAdapter
from scheduler_svc.domain.adapters.selection import Holder, select
from scheduler_svc.domain.engine_facts import EngineFacts, RunTimeAdapters
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceView:
    """One adapter on one instance, as operators see it."""

    instance_id: str
    state: AdapterState
    reason: str = ""
    weights: str = ""
    rank: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterView:
    """An adapter of the registry, for operators."""

    adapter: RegisteredAdapter
    requests: int  # accepted ones that name it
    instances: tuple[InstanceView, ...]
    not_kept: str = ""  # why it is not in the journal, in words


class Adapters:
    """Decides what every instance holds, tells its executor, and takes what executors report.

    Bounded by the registered adapters and the instances that have a session.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        models: ModelDirectory,
        wakeup: Wakeup,
        registry: AdapterRegistry,
        uses: AdapterUses,
        *,
        returning: Callable[[], bool],
    ) -> None:
        """Hold nothing.  ``returning``: whether requests of an earlier scheduler, with any adapter, may still come."""
        self._scheduler = scheduler
        self._models = models
        self._wakeup = wakeup
        self._registry = registry
        self._uses = uses
        self._returning = returning
        self._instances: dict[str, InstanceAdapters] = {}  # those with a session, by id

    # --- operators ----------------------------------------------------------------------------------

    async def add(self, model: str, source: AdapterSource) -> AdapterView:
        """Enter an adapter, and have the instances of its model load it; where it failed, they try again.

        ``model`` may be empty where there is only one.

        Raises UnknownModel, LimitReached; InvalidRequest for the name of another adapter, of a model, or of an adapter
        from an engine's start.
        """
        model = self._name(model)
        adapter = RegisteredAdapter(model=model, source=source)
        self._refuse_taken(adapter)
        self._registry.put(adapter)
        for each in self._of(model):
            each.failed.pop(source.name, None)
        log.info("adapter %s of %s: added, from %s %s", source.name, model, source.source, source.revision)
        self._settle(model)
        await self._registry.write()
        return self._view(adapter)

    def _name(self, model: str) -> str:
        try:
            return self._models.name(model)
        except InvalidRequest:
            there_are = ", ".join(self._models.names())
            raise _at_fault("model", f"name one of the models served: {there_are}") from None

    def _refuse_taken(self, adapter: RegisteredAdapter) -> None:
        known = self._registry.find(adapter.model, adapter.name)
        if known is not None and known.removing:
            raise _at_fault("name", f"{adapter.name!r} is being removed: requests that were accepted still use it")
        if known is not None and known.source != adapter.source:
            raise _at_fault("name", f"{adapter.name!r} is registered with another source: {known.source.source}")
        if adapter.name in self._models.names():
            raise _at_fault("name", f"{adapter.name!r} is the name of a model")
        for instance in self._scheduler.instances(adapter.model):
            if instance.live and instance.facts is not None and adapter.name in instance.facts.started_with:
                what = f"{instance.instance_id} has an adapter {adapter.name!r} from its engine's start"
                raise _at_fault("name", what)

    async def remove(self, model: str, name: str) -> AdapterView:
        """Take an adapter out: new requests are refused from now on, accepted ones end first.

        Raises UnknownModel, and InvalidRequest if there is no such adapter.
        """
        model = self._name(model) if self._registry.find(model, name) is None else model
        adapter = self._registry.find(model, name)
        if adapter is None:
            there_are = ", ".join(each.name for each in self._registry.of(model)) or "none"
            raise _at_fault("name", f"{name!r} is not a registered adapter of {model!r}; there are: {there_are}")
        if not adapter.removing:
            adapter = self._registry.begin_removal(adapter)
            log.info("adapter %s of %s: removed; %d requests use it", name, model, self._uses.requests(model, name))
        self._settle(model)
        await self._registry.write()
        return self._view(adapter)

    def listed(self, model: str = "") -> list[AdapterView]:
        """Return the adapters of one model, or of all, sorted by model and name."""
        found = self._registry.of(model) if model else self._registry.all()
        return [self._view(each) for each in found]

    def counts(self) -> dict[tuple[str, str], Counter[AdapterState]]:
        """Return how many adapters each ready instance that has any has by state, by its id and model."""
        registered: defaultdict[str, set[str]] = defaultdict(set)
        for adapter in self._registry.all():
            registered[adapter.model].add(adapter.name)
        return {
            (each.instance_id, each.model): found
            for each in self._instances.values()
            if (facts := self._facts(each)) is not None
            and (found := each.counts(facts.started_with, registered[each.model]))
        }

    def restore(self) -> None:
        """Take over the adapters that an earlier scheduler's operators added."""
        self._registry.load()

    # --- sessions -----------------------------------------------------------------------------------

    def opened(self, found: InstanceAdapters) -> None:
        """Note that an executor's session opened; what the same engine had, and failed to load, still counts."""
        old = self._instances.get(found.instance_id)
        if old is not None and old.engine_start_id == found.engine_start_id:
            found.failed, found.had = old.failed, old.had
        self._instances[found.instance_id] = found

    def engine_ready(self, instance_id: str) -> None:
        """Have an engine that is up hold what it is to hold; its facts name no run-time adapter yet."""
        if (found := self._instances.get(instance_id)) is not None:
            self._settle(found.model)

    def reported(self, instance_id: str, number: int, reports: Sequence[AdapterReport]) -> None:
        """Take what an executor says of all its adapters; ``number``: of the latest order that it knew."""
        found = self._instances.get(instance_id)
        if found is None:
            return
        for each in reports:
            before = found.reports.get(each.source.name)
            if before is None or before.state is not each.state:
                level = logging.WARNING if each.state is AdapterState.FAILED else logging.INFO
                what = each.source.name, found.model, each.state.value, instance_id
                log.log(level, "adapter %s of %s: %s on %s%s", *what, f": {each.reason}" if each.reason else "")
        failed_before = dict(found.failed)
        found.take(number, reports)
        facts = self._facts(found)
        if found.wanted is None or found.failed != failed_before:
            self._settle(found.model)
        elif facts is not None:  # what each instance is to hold does not depend on what is loaded
            self._serve(found.model, [(found, facts)])

    def closed(self, instance_id: str) -> None:
        """Note that an instance's session is over for good."""
        found = self._instances.pop(instance_id, None)
        if found is not None:
            self._settle(found.model)

    def check(self) -> None:
        """Act on requests that were accepted or ended since the last call, and on those that cannot return any more."""
        changed, self._uses.changed_models = self._uses.changed_models, set()
        for model in changed.union(each.model for each in self._registry.all() if self._is_over(each)):
            self._settle(model)

    # --- what each instance holds --------------------------------------------------------------------

    def _of(self, model: str) -> list[InstanceAdapters]:
        return [each for _, each in sorted(self._instances.items()) if each.model == model]

    def _settle(self, model: str) -> None:
        """Finish removals, tell executors what to hold, and the domain what their instances serve."""
        self._finish_removals(model)
        adapters = {each.name: each for each in self._registry.of(model)}
        ready = [(each, facts) for each in self._of(model) if (facts := self._facts(each)) is not None]
        chosen = select(map(self._uses.of, adapters.values()), [_holder(each, facts) for each, facts in ready])
        for instance, _ in ready:
            if instance.supports and (adapters or instance.wanted or instance.reports):
                instance.want([adapters[name].source for name in chosen[instance.instance_id]])
        self._serve(model, ready)

    def _serve(self, model: str, ready: Sequence[tuple[InstanceAdapters, EngineFacts]]) -> None:
        """Tell the domain what instances of a model, whose engines have these facts, serve of its adapters."""
        adapters = self._registry.of(model)
        names = {each.name for each in adapters}
        changed = False
        for instance, facts in ready:
            instance.had = {name: weights for name, weights in instance.had.items() if name in names}
            found = _run_time(instance, facts, adapters)
            changed |= self._scheduler.set_adapters(instance.instance_id, found)
        if changed:
            self._models.ready(model)
            self._wakeup.notify()

    def _finish_removals(self, model: str) -> None:
        for each in self._registry.of(model):
            if self._is_over(each):
                self._registry.drop(model, each.name)
                self._uses.forget(model, each.name)
                log.info("adapter %s of %s: no request uses it any more; it is unloaded", each.name, model)

    def _is_over(self, adapter: RegisteredAdapter) -> bool:
        """Return whether no request uses an adapter that is being removed, and none can come back."""
        return adapter.removing and not self._uses.requests(adapter.model, adapter.name) and not self._returning()

    def _facts(self, found: InstanceAdapters) -> EngineFacts | None:
        instance = self._scheduler.find_instance(found.instance_id)
        return instance.facts if instance is not None else None

    # --- what operators see --------------------------------------------------------------------------

    def _view(self, adapter: RegisteredAdapter) -> AdapterView:
        return AdapterView(
            adapter=adapter,
            requests=self._uses.requests(adapter.model, adapter.name),
            instances=tuple(
                self._instance_view(adapter, each)
                for each in self._scheduler.instances(adapter.model)
                if each.instance_id in self._instances
            ),
            not_kept=self._registry.not_kept(adapter),
        )

    def _instance_view(self, adapter: RegisteredAdapter, instance: Instance) -> InstanceView:
        found, facts, name = self._instances[instance.instance_id], instance.facts, adapter.name
        instance_id = instance.instance_id
        if facts is not None and name in facts.started_with:
            weights = facts.adapter_weights.get(name, "")
            reason = "from its engine's start"
            return InstanceView(instance_id=instance_id, state=AdapterState.LOADED, reason=reason, weights=weights)
        if facts is None:
            return InstanceView(instance_id=instance_id, state=AdapterState.ABSENT, reason="its engine is not ready")
        if why := _why_unsupported(found, facts):
            return InstanceView(instance_id=instance_id, state=AdapterState.UNSUPPORTED, reason=why)
        report = found.failed.get(name) or found.reports.get(name)
        if report is not None and report.source == adapter.source:
            return InstanceView(
                instance_id=instance_id,
                state=report.state,
                reason=report.reason,
                weights=report.weights,
                rank=report.rank,
            )
        if found.is_told(adapter.source):
            return InstanceView(instance_id=instance_id, state=AdapterState.LOADING, reason="it was told to load it")
        others = ", ".join(each.name for each in found.wanted or ())
        reason = f"its {facts.adapter_slots} slots are for adapters that are in use or were used later: {others}"
        return InstanceView(instance_id=instance_id, state=AdapterState.ABSENT, reason=reason)


def _at_fault(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field=field, description=description)])


def _why_unsupported(found: InstanceAdapters, facts: EngineFacts) -> str:
    """Say why an instance takes no adapters at run time; empty if it does."""
    if not found.supports:
        return "its executor is of a version that takes no adapters while it runs"
    if not facts.adapter_slots:
        return "its engine was started without slots for adapters"
    return ""


def _holder(found: InstanceAdapters, facts: EngineFacts) -> Holder:
    return Holder(
        instance_id=found.instance_id,
        slots=facts.adapter_slots if found.supports else 0,
        holds=frozenset(each.name for each in found.wanted or ()),
        cannot=facts.started_with.union(found.failed),
    )


def _run_time(found: InstanceAdapters, facts: EngineFacts, adapters: Sequence[RegisteredAdapter]) -> RunTimeAdapters:
    """Return what an instance serves of the registered adapters, and what it could."""
    can = not _why_unsupported(found, facts)
    return RunTimeAdapters(
        loaded={each.name: found.reports[each.name].weights for each in adapters if found.holds(each.source)},
        loadable=frozenset(
            each.name for each in adapters if can and not each.removing and each.name not in found.failed
        ),
        leaving=frozenset(each.name for each in adapters if each.removing),
        had=dict(found.had),
    )
