"""The models there are, what they need, and how many instances each should have."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from scheduler_svc.domain.device_groups.member import ModelDemand
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.entrance.parts import Parts
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.orphan import Orphan, orphans_of
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.sleepers import missed, wanted_sleepers


class Models(Parts):
    """Answers for the models that instances serve or requests wait for."""

    def models(self) -> list[str]:
        """Return the names of the known models: with an instance, with waiting requests, or not retired yet."""
        return [pool.model for pool in self._registry.pools()]

    def models_with_instances(self) -> list[str]:
        """Return the names of the models that some instance serves, whatever its state."""
        return [pool.model for pool in self._registry.pools() if len(pool)]

    def knows_model(self, model: str) -> bool:
        """Whether ``models`` holds this name."""
        return self._registry.find_pool(model) is not None

    def kv_block_sizes(self, model: str) -> tuple[int, ...]:
        """Return the tokens of a KV block of the model's engines, each size once; empty where none is known."""
        pool = self._registry.find_pool(model)
        return pool.kv_block_sizes if pool is not None else ()

    def instance_states(self, model: str) -> str:
        """Say how many instances of the model are in which state: "2 ready, 1 downloading"."""
        pool = self._registry.find_pool(model)
        return pool.states() if pool is not None else "none registered"

    def served_facts(self, model: str) -> tuple[EngineFacts, ...]:
        """Return the different facts of the model's live instances that generate (``Pool.served_facts``)."""
        pool = self._registry.find_pool(model)
        return pool.served_facts if pool is not None else ()

    def model_conditions(self) -> list[str]:
        """Say which models have instances that run different models under one name; empty when all is well."""
        found = (pool.disagreement for pool in self._registry.pools())
        return [condition for condition in found if condition]

    def orphans(self, now: float, timeout_s: float) -> list[Orphan]:
        """Return the waiting requests that no READY instance could serve for ``timeout_s``, except those that wait.

        The time counts for each request.  It is over only once no engine of the model starts for the first time, or
        again after it had been READY: one that fails to start again and again gives no hope.
        """
        return [o for pool in self._registry.pools() if pool.queue for o in orphans_of(pool, now, timeout_s)]

    def retire_models(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Forget the models without instances and waiting requests, except those of ``keep``."""
        self._registry.retire_models(keep=keep)

    def start_s(self, model: str) -> float | None:
        """Return the mean seconds of a model's recent starts; None before the first."""
        pool = self._registry.find_pool(model)
        return pool.starts.mean_s if pool is not None else None

    def wanted_asleep(self) -> list[list[Instance]]:
        """Return the SLEEPING instances that requests wait for which no other instance serves soon.

        A list for each kind of request; any instance of it will do.
        """
        return [each for pool in self._registry.pools() for each in wanted_sleepers(pool)]

    def missed(self, instance_id: str, woken: Container[str], now: float) -> ModelDemand:
        """Return the requests that wait for this instance although others of its model are READY.

        ``woken``: ids of instances that sleep and were told to be awake.  Raises InstanceNotFound.
        """
        instance = self._registry.get(instance_id)
        return missed(self._registry.pool_of(instance), instance, woken, now)

    def scale(self, waiting_elsewhere: Mapping[str, int], now: float) -> Sequence[DesiredInstances]:
        """Work out anew how many instances each model needs; call it every ``ScalingSettings.interval_s``.

        ``waiting_elsewhere``: requests by model that wait for an instance and are in no queue yet.
        """
        return self._scaler.look(waiting_elsewhere, now)

    @property
    def desired_instances(self) -> Sequence[DesiredInstances]:
        """The desired instances as of the last call of ``scale``, sorted by model and role; empty before it."""
        return self._scaler.desired
