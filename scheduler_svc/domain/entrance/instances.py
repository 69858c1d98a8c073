"""The instances there are, and what their executors say of them."""

from __future__ import annotations

from scheduler_svc.domain.engine_facts import EngineFacts, RunTimeAdapters
from scheduler_svc.domain.entrance.attempts import Attempts
from scheduler_svc.domain.entrance.pairs import Pairs
from scheduler_svc.domain.fleet.health import HealthVerdict
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import DRAINS, InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prediction.predictor import Accuracy
from scheduler_svc.domain.prefixes.cache_report import CacheReport


class Instances(Attempts, Pairs):
    """Takes instances in, with their states, engines and heartbeats."""

    def register(self, spec: InstanceSpec, now: float) -> Instance:
        """Register an instance, or update one that is registered (``Registry.register``).  Raises LimitReached.

        If a new engine replaces an old one, call ``lose`` first.
        """
        return self._registry.register(spec, now)

    def forget(self, instance_id: str) -> None:
        """Remove an instance that is gone.  Raises InstanceNotFound."""
        self._registry.forget(instance_id)
        self._prefixes.forget(instance_id)

    def instance(self, instance_id: str) -> Instance:
        """Return the instance of this id.  Raises InstanceNotFound."""
        return self._registry.get(instance_id)

    def find_instance(self, instance_id: str) -> Instance | None:
        """Return the instance of this id; None if there is none."""
        return self._registry.find(instance_id)

    def instances(self, model: str | None = None) -> list[Instance]:
        """Return all instances, or those of one model, sorted by id."""
        if model is None:
            return self._registry.all()
        pool = self._registry.find_pool(model)
        return pool.instances() if pool is not None else []

    def ready_instances(self, model: str) -> list[Instance]:
        """Return the READY instances of a model, sorted by id."""
        return [i for i in self.instances(model) if i.state is InstanceState.READY]

    def note_wake(self, instance_id: str, wake_s: float) -> None:
        """Take how many seconds waking an instance took the last time.  Raises InstanceNotFound."""
        self._registry.get(instance_id).wake_s = wake_s

    def note_start(self, instance_id: str, now: float) -> None:
        """Note that an engine starts only now: its executor had to wait for a place.  Raises InstanceNotFound."""
        instance = self._registry.get(instance_id)
        instance.start_began_at, instance.has_place = now, True

    def note_on_demand(self, instance_id: str, on_demand: bool) -> None:
        """Note whether an instance is started or woken when requests wait for its model, until its engine is gone.

        Raises InstanceNotFound.
        """
        self._registry.get(instance_id).on_demand = on_demand

    def set_role(self, instance_id: str, role: InstanceRole) -> InstanceRole:
        """Change what an instance is eligible for; nothing needs draining.  Returns the role before.

        Raises InstanceNotFound; InvalidRequest if a generating engine would have to embed, or the reverse.
        """
        return self._registry.set_role(instance_id, role)

    def transition(self, instance_id: str, state: InstanceState, reason: str, now: float) -> Instance:
        """Change an instance's state; the same state again only changes the reason.

        With SLEEPING, its prefix cache counts as empty.  Raises InstanceNotFound, InvalidTransition
        (``instance_state.TRANSITIONS``).
        """
        instance = self._registry.transition(instance_id, state, reason, now)
        if state is InstanceState.SLEEPING:
            self._prefixes.emptied(instance_id)
        return instance

    def recover(self, instance_id: str, reason: str, now: float) -> Instance:
        """Take SUSPECT or STALLED back to what it was before; in any other state, nothing happens.

        Raises InstanceNotFound.
        """
        return self._registry.recover(instance_id, reason, now)

    def recover_without_drain(self, instance_id: str) -> None:
        """Let an instance that drained before it became SUSPECT or STALLED recover to READY instead.

        Raises InstanceNotFound.
        """
        instance = self._registry.get(instance_id)
        if instance.recovers_to in DRAINS:
            instance.recovers_to = InstanceState.READY

    def engine_ready(self, instance_id: str, facts: EngineFacts, now: float) -> Instance:
        """Take the facts of an engine that is up and produced tokens.

        A new ``engine_start_id`` starts the predictor over.  An instance that is draining stays so, and one that is
        STALLED has to do iterations first.  Raises InstanceNotFound; InvalidTransition for a LOST instance, which has
        to register first.
        """
        instance = self._reports.engine_ready(instance_id, facts, now)
        self.renew_pairs()  # even while splitting is off: handoffs of the old engine prove nothing about the new one
        return instance

    def set_adapters(self, instance_id: str, found: RunTimeAdapters) -> bool:
        """Take the run-time adapters of an instance; return whether they changed.  Raises InstanceNotFound.

        Nothing changes while its engine is not known.
        """
        return self._registry.set_adapters(instance_id, found)

    def report(self, instance_id: str, load: LoadReport, now: float) -> None:
        """Take a heartbeat.  Raises InstanceNotFound."""
        self._reports.report(instance_id, load, now)

    def report_cache(self, instance_id: str, report: CacheReport) -> None:
        """Take what an engine says of its prefix cache.  Raises InstanceNotFound."""
        self._registry.get(instance_id)
        self._prefixes.report(instance_id, report)

    def lose(self, instance_id: str, reason: str, now: float) -> list[int]:
        """Free all reservations on an instance.  Returns their attempt numbers, oldest first.

        The instance stays in its state (``transition`` changes it); ``reason`` becomes its state's reason.

        Raises InstanceNotFound.
        """
        lost = self._reports.lose(instance_id, reason, now)
        for attempt_number in lost:
            self._charges.settle(attempt_number, 0, now)
        return lost

    def check_health(self, now: float) -> list[HealthVerdict]:
        """Judge every instance by its progress and change the states that need it.  Returns the changes."""
        return self._reports.check_health(now)

    def accuracy(self, instance_id: str) -> dict[str, Accuracy]:
        """Return how close predictions about an instance were, by kind: "iteration", "first_token", "finish".

        Raises InstanceNotFound.
        """
        predictor = self._registry.get(instance_id).predictor
        return predictor.accuracies() if predictor is not None else {}
