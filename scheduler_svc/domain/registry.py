"""The instances there are, and the states they may be in."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler_svc.domain.errors import (
    FieldViolation,
    InstanceNotFound,
    InvalidRequest,
    InvalidTransition,
    LimitReached,
)
from scheduler_svc.domain.health import ProgressWatch
from scheduler_svc.domain.instance import EngineFacts, InstanceRole, InstanceSpec, InstanceState, LoadReport
from scheduler_svc.domain.ledger import Account
from scheduler_svc.domain.pd.specialization import Specialization, specialization
from scheduler_svc.domain.pool import Pool
from scheduler_svc.domain.predictor import Predictor

_S = InstanceState
_STARTING = frozenset({_S.DOWNLOADING, _S.LOADING, _S.WARMING})
_ENDS = frozenset({_S.LOST, _S.FAILED})
_DRAINS = frozenset({_S.DRAINING, _S.DRAINED})

#: What may follow what.  An executor may register anew at any time, so everything may start over.
TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    _S.DOWNLOADING: _STARTING | _DRAINS | _ENDS | {_S.READY, _S.SUSPECT},
    _S.LOADING: _STARTING | _DRAINS | _ENDS | {_S.READY, _S.SUSPECT},
    _S.WARMING: _STARTING | _DRAINS | _ENDS | {_S.READY, _S.SUSPECT},
    _S.READY: _STARTING | _DRAINS | _ENDS | {_S.SUSPECT, _S.STALLED},
    _S.SUSPECT: _STARTING | _DRAINS | _ENDS | {_S.READY, _S.STALLED},
    _S.STALLED: _STARTING | _DRAINS | _ENDS | {_S.READY, _S.SUSPECT},
    _S.DRAINING: _STARTING | _ENDS | {_S.READY, _S.DRAINED, _S.SUSPECT, _S.STALLED},
    _S.DRAINED: _STARTING | _ENDS | {_S.READY, _S.SUSPECT},
    _S.LOST: _STARTING | {_S.FAILED},
    _S.FAILED: _STARTING | {_S.LOST},
}


class Instance:
    """One executor and its engine.  Identity is the id; it stays the same object over restarts of the engine.

    State changes go through ``Registry.transition`` only.
    """

    __slots__ = (
        "_role",
        "account",
        "engine_start_id",
        "facts",
        "last_report_at",
        "load",
        "pool",
        "predictor",
        "progress",
        "recovers_to",
        "spec",
        "state",
        "state_reason",
        "state_since",
        "watch",
    )

    def __init__(self, spec: InstanceSpec, pool: Pool, now: float) -> None:
        self.spec = spec
        self.pool = pool
        self.facts: EngineFacts | None = None  # of the running engine; None until it is READY
        self.engine_start_id = ""  # the engine those facts are of
        self.state = InstanceState.DOWNLOADING
        self.state_reason = "registered"
        self.state_since = now
        self.recovers_to = InstanceState.DOWNLOADING  # the state before SUSPECT or STALLED
        self.progress: float | None = None  # [0, 1] while it starts, where known
        self.load: LoadReport | None = None  # the latest heartbeat
        self.last_report_at: float | None = None
        self.watch = ProgressWatch(now)
        self.predictor: Predictor | None = None  # from READY on
        self.account = Account(spec.instance_id)
        self._role = spec.role

    @property
    def instance_id(self) -> str:
        return self.spec.instance_id

    @property
    def role(self) -> InstanceRole:
        """What it is eligible for.  An administrator changes it through ``Registry.set_role``."""
        return self._role

    @role.setter
    def role(self, role: InstanceRole) -> None:
        self._role = role
        self.pool.invalidate()

    @property
    def specialization(self) -> Specialization:
        """How well it suits each leg of a split request now."""
        return specialization(self._role, kv_connector=self.facts.kv_connector if self.facts is not None else "")

    @property
    def live(self) -> bool:
        """Whether it serves, will serve, or may come back."""
        return self.state not in _ENDS and self.state not in _DRAINS

    def __repr__(self) -> str:
        return f"Instance({self.instance_id}, {self.spec.model}, {self.state.value})"


class Registry:
    """At most ``max_instances``, of at most ``max_models`` models."""

    def __init__(self, *, max_instances: int, max_models: int) -> None:
        self._instances: dict[str, Instance] = {}
        self._pools: dict[str, Pool] = {}
        self._max_instances = max_instances
        self._max_models = max_models

    def register(self, spec: InstanceSpec, now: float) -> Instance:
        """Enter an instance, or take the new spec of one that is there.

        One that is there with the same ``engine_start_id`` keeps facts, figures and state (a reconnect); but LOST or
        FAILED starts over and has to prove itself again.  With another ``engine_start_id`` it starts over: let go of
        what the old engine held (``Scheduler.lose``) first.  A role set by an administrator stays, unless the
        executor was started anew to embed, or no longer to.

        Raises LimitReached.
        """
        instance = self._instances.get(spec.instance_id)
        if instance is None:
            if len(self._instances) >= self._max_instances:
                raise LimitReached("instances", self._max_instances)
            instance = Instance(spec, self.pool(spec.model), now)
            self._instances[spec.instance_id] = instance
            instance.pool.add(instance)
            return instance
        self._renew(instance, spec)
        if instance.engine_start_id != spec.engine_start_id or instance.state in _ENDS:
            instance.facts = None
            self._become(instance, InstanceState.DOWNLOADING, "registered again", now)
        return instance

    def _renew(self, instance: Instance, spec: InstanceSpec) -> None:
        old, instance.spec = instance.spec, spec
        if spec.model != old.model:
            pool = self.pool(spec.model)
            instance.pool.remove(instance)
            instance.pool = pool
            pool.add(instance)
        if instance.role is old.role or _embeds(instance.role) is not _embeds(spec.role):
            instance.role = spec.role
        instance.account.price_per_s = spec.price_per_hour / 3600

    def set_role(self, instance_id: str, role: InstanceRole) -> InstanceRole:
        """Change what an instance is eligible for; nothing needs draining.  Returns the role before.

        Whether an engine embeds or generates is decided when it starts.  Raises InstanceNotFound, InvalidRequest.
        """
        instance = self.get(instance_id)
        if _embeds(role) is not _embeds(instance.spec.role):
            started, wanted = instance.spec.role.value, role.value
            why = f"the executor of {instance_id!r} was started as {started} and cannot become {wanted} while it runs"
            raise InvalidRequest([FieldViolation(field="role", description=why)])
        previous, instance.role = instance.role, role
        return previous

    def get(self, instance_id: str) -> Instance:
        """Raises InstanceNotFound."""
        try:
            return self._instances[instance_id]
        except KeyError:
            raise InstanceNotFound(instance_id, self._instances) from None

    def find(self, instance_id: str) -> Instance | None:
        return self._instances.get(instance_id)

    def all(self) -> list[Instance]:
        """By id."""
        return [self._instances[i] for i in sorted(self._instances)]

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances.values())

    def __len__(self) -> int:
        return len(self._instances)

    def serving(self, model: str) -> list[Instance]:
        """READY instances of the model, by id."""
        pool = self._pools.get(model)
        return [i for i in pool.instances() if i.state is InstanceState.READY] if pool else []

    def models(self) -> set[str]:
        """Models that a live instance serves or is about to serve."""
        return {i.spec.model for i in self._instances.values() if i.live}

    def transition(self, instance_id: str, state: InstanceState, reason: str, now: float) -> Instance:
        """Change an instance's state; the same state again only changes the reason.

        Raises InstanceNotFound, InvalidTransition.
        """
        instance = self.get(instance_id)
        if state is not instance.state and state not in TRANSITIONS[instance.state]:
            raise InvalidTransition(f"instance {instance_id!r}", instance.state.value, state.value)
        self._become(instance, state, reason, now)
        return instance

    def recover(self, instance_id: str, reason: str, now: float) -> Instance:
        """Take SUSPECT or STALLED back to what it was before; in any other state, nothing happens.

        Raises InstanceNotFound.
        """
        instance = self.get(instance_id)
        if instance.state in (InstanceState.SUSPECT, InstanceState.STALLED):
            self._become(instance, instance.recovers_to, reason, now)
        return instance

    def _become(self, instance: Instance, state: InstanceState, reason: str, now: float) -> None:
        before = instance.state
        if reason != instance.state_reason:
            instance.state_reason = reason
            instance.pool.invalidate()
        if state is before:
            return
        troubled = (InstanceState.SUSPECT, InstanceState.STALLED)
        if state in troubled and before not in troubled:
            instance.recovers_to = before
        if state is InstanceState.READY:
            instance.progress = None
        if before is InstanceState.SUSPECT:
            instance.watch.pause(now - instance.state_since)
        elif state is InstanceState.READY:
            instance.watch.restart(now)
        instance.state = state
        instance.state_since = now
        instance.pool.invalidate()

    def forget(self, instance_id: str) -> None:
        """Take an instance out of the record.  Raises InstanceNotFound."""
        instance = self.get(instance_id)
        instance.pool.remove(instance)
        del self._instances[instance_id]

    def pool(self, model: str) -> Pool:
        """The model's instances; an empty pool is made where there is none.  Raises LimitReached."""
        pool = self._pools.get(model)
        if pool is None:
            if len(self._pools) >= self._max_models:
                self.retire_models()
            if len(self._pools) >= self._max_models:
                raise LimitReached("models", self._max_models)
            pool = self._pools[model] = Pool(model)
        return pool

    def find_pool(self, model: str) -> Pool | None:
        return self._pools.get(model)

    def pools(self) -> list[Pool]:
        return list(self._pools.values())

    def retire_models(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Drop the pools of models without an instance and without a request that waits, but for those of ``keep``."""
        self._pools = {m: p for m, p in self._pools.items() if len(p) or p.queue or m in keep}


def _embeds(role: InstanceRole) -> bool:
    return role is InstanceRole.EMBEDDING
