"""The instances there are, and the pools of those that serve the same model."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler_svc.domain.engine_facts import RunTimeAdapters
from scheduler_svc.domain.errors import FieldViolation, InstanceNotFound, InvalidRequest, LimitReached
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import GONE, STARTING, InstanceState
from scheduler_svc.domain.role_change import RoleChange

#: States that an engine reports while it starts.  One that runs already and registers anew does not report them.
_SEEN_STARTING = frozenset({InstanceState.LOADING, InstanceState.WARMING})


class Registry:
    """Holds at most ``max_instances`` instances of at most ``max_models`` models.

    Every instance is in the pool of its model, and a pool learns of every change of its instances from here.
    """

    def __init__(self, *, max_instances: int, max_models: int) -> None:
        self._instances: dict[str, Instance] = {}
        self._pools: dict[str, Pool] = {}
        self._max_instances = max_instances
        self._max_models = max_models

    # ------------------------------------------------------------------ changes

    def register(self, spec: InstanceSpec, now: float) -> Instance:
        """Register an instance, or update one that is registered.

        With the same ``engine_start_id`` (a reconnect) an instance keeps facts, figures and state; but one that is
        starting, LOST or FAILED starts over at DOWNLOADING.  With another ``engine_start_id`` the old engine counts
        as LOST and the instance starts over: call ``Scheduler.lose`` first, to free what the old engine held.

        A role that an administrator set stays, unless the executor now embeds and did not before, or the reverse.  One
        that came by itself stays unless the model or the configured role is another one.

        Raises LimitReached.
        """
        instance = self._instances.get(spec.instance_id)
        if instance is None:
            if len(self._instances) >= self._max_instances:
                raise LimitReached("instances", self._max_instances)
            instance = Instance(spec, now)
            self.pool(spec.model).add(instance)
            self._instances[spec.instance_id] = instance
            return instance
        self._renew(instance, spec)
        new_engine = instance.engine_start_id != spec.engine_start_id
        if new_engine and instance.state not in STARTING and instance.state not in GONE:
            self.transition(instance.instance_id, InstanceState.LOST, "replaced by a new engine", now)
        if new_engine or instance.state in GONE:
            instance.facts = None
            self.transition(instance.instance_id, InstanceState.DOWNLOADING, "registered again", now)
        return instance

    def _renew(self, instance: Instance, spec: InstanceSpec) -> None:
        old = instance.spec
        if spec.model != old.model:
            pool = self.pool(spec.model)
            self.pool_of(instance).remove(instance)
            instance.spec = spec
            pool.add(instance)
        instance.spec = spec
        if instance.role_change is not None and (spec.model, spec.role) == (old.model, old.role):
            self._give_role(instance, instance.role, instance.role_change)
        elif instance.role_change is not None or instance.role is old.role or _embeds_otherwise(instance, spec):
            self._give_role(instance, spec.role)
        instance.account.set_price(spec.price_per_hour)

    def set_role(self, instance_id: str, role: InstanceRole, change: RoleChange | None = None) -> InstanceRole:
        """Change what an instance is eligible for; nothing needs draining.  Returns the role before.

        ``change``: what the scheduler decided by itself; None: an operator gives the role.

        Whether an engine embeds or generates is decided when it starts.  Raises InstanceNotFound, InvalidRequest.
        """
        instance = self.get(instance_id)
        if role.embeds is not instance.spec.role.embeds:
            started, wanted = instance.spec.role.value, role.value
            why = f"the executor of {instance_id!r} was started as {started} and cannot become {wanted} while it runs"
            raise InvalidRequest([FieldViolation(field="role", description=why)])
        previous = instance.role
        self._give_role(instance, role, change)
        return previous

    def _give_role(self, instance: Instance, role: InstanceRole, change: RoleChange | None = None) -> None:
        instance.role = role
        instance.role_change = change
        self.pool_of(instance).invalidate()

    def set_adapters(self, instance_id: str, found: RunTimeAdapters) -> bool:
        """Take the run-time adapters of an engine that is known; return whether they changed.

        Raises InstanceNotFound.
        """
        instance = self.get(instance_id)
        facts = instance.facts
        changed = facts.with_adapters(found) if facts is not None else None
        if changed == facts:
            return False
        instance.facts = instance.account.facts = changed
        self.pool_of(instance).invalidate()
        return True

    def transition(self, instance_id: str, state: InstanceState, reason: str, now: float) -> Instance:
        """Change an instance's state; the same state again only changes the reason.

        Raises InstanceNotFound, InvalidTransition.
        """
        instance = self.get(instance_id)
        before = instance.state, instance.state_reason
        instance.transition(state, reason, now)
        if before != (state, reason):
            self.pool_of(instance).invalidate()
        if state is InstanceState.READY and before[0] in _SEEN_STARTING:
            self.pool_of(instance).starts.add(now - instance.start_began_at)
        return instance

    def recover(self, instance_id: str, reason: str, now: float) -> Instance:
        """Take SUSPECT or STALLED back to what it was before; in any other state, nothing happens.

        Raises InstanceNotFound.
        """
        instance = self.get(instance_id)
        if instance.state in (InstanceState.SUSPECT, InstanceState.STALLED):
            self.transition(instance_id, instance.recovers_to, reason, now)
        return instance

    def forget(self, instance_id: str) -> None:
        """Remove an instance that is gone.  Raises InstanceNotFound."""
        instance = self.get(instance_id)
        self.pool_of(instance).remove(instance)
        del self._instances[instance_id]

    # ------------------------------------------------------------------ instances

    def get(self, instance_id: str) -> Instance:
        """Return the instance of this id.  Raises InstanceNotFound."""
        try:
            return self._instances[instance_id]
        except KeyError:
            raise InstanceNotFound(instance_id, self._instances) from None

    def find(self, instance_id: str) -> Instance | None:
        """Return the instance of this id; None if there is none."""
        return self._instances.get(instance_id)

    def all(self) -> list[Instance]:
        """Return all instances, sorted by id."""
        return [self._instances[i] for i in sorted(self._instances)]

    def __iter__(self) -> Iterator[Instance]:
        """Iterate over all instances in the order in which they registered."""
        return iter(self._instances.values())

    def __len__(self) -> int:
        return len(self._instances)

    def __bool__(self) -> bool:
        return bool(self._instances)

    # ------------------------------------------------------------------ models

    def pool(self, model: str) -> Pool:
        """Return the model's pool; make an empty one if there is none.  Raises LimitReached."""
        pool = self._pools.get(model)
        if pool is None:
            if len(self._pools) >= self._max_models:
                self.retire_models()
            if len(self._pools) >= self._max_models:
                raise LimitReached("models", self._max_models)
            pool = self._pools[model] = Pool(model)
        return pool

    def pool_of(self, instance: Instance) -> Pool:
        """Return the pool that an instance of this registry is in."""
        return self._pools[instance.spec.model]

    def find_pool(self, model: str) -> Pool | None:
        """Return the model's pool; None if the model is not known."""
        return self._pools.get(model)

    def pools(self) -> list[Pool]:
        """Return the pools of all models that are known."""
        return list(self._pools.values())

    def retire_models(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Drop the pools of models without instances and waiting requests, except those of ``keep``."""
        self._pools = {m: p for m, p in self._pools.items() if len(p) or p.queue or m in keep}


def _embeds_otherwise(instance: Instance, spec: InstanceSpec) -> bool:
    return instance.role.embeds is not spec.role.embeds
