"""Operators' decisions in force, which the journal keeps for the next start."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import TypeAlias

from sage_common.clock import Clock
from scheduler_svc.control.journal.decisions import (
    ADAPTER,
    POLICY,
    SHADOW,
    SPLITTING,
    Decisions,
    DecisionStore,
    InstanceDecision,
    Plain,
)
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.domain.instance_spec import InstanceRole

log = logging.getLogger(__name__)

INSTANCES_LIMIT = 10_000
"""Instances with a decision; beyond it the oldest decision is dropped, with a warning."""

RETRY_S = 2.0
"""Seconds between two tries to write what could not be written."""

NOT_YET = "it is being written"
"""Why a decision that was just made is not in the journal."""

_Unwritten: TypeAlias = Mapping[tuple[str, str], Mapping[str, Plain] | InstanceDecision]
"""Decisions by kind and name."""

_NONE: Mapping[str, Plain] = {}


class OperatorDecisions:
    """Holds the decisions, writes each change, and tries again while the journal is in trouble.

    A decision is in force at once, whether it could be written or not.
    """

    def __init__(self, clock: Clock, store: DecisionStore | None = None) -> None:
        """``store`` is None without a journal: decisions then end with the process."""
        self._clock = clock
        self._store = store
        self._fleet: dict[str, Mapping[str, Plain]] = {}
        self._instances: dict[str, InstanceDecision] = {}  # the oldest first
        self._trouble = ""  # why the last try to write failed, in words
        self._unwritten: dict[tuple[str, str], Mapping[str, Plain] | InstanceDecision] = {}  # by kind and name

    @property
    def lasting(self) -> bool:
        """Whether decisions outlive this process."""
        return self._store is not None

    async def load(self) -> None:
        """Take over what the journal has.  Raises JournalUnavailable."""
        if self._store is None:
            return
        found = await self._store.load()
        self._fleet = {name: dict(value) for name, value in found.fleet.items()}
        self._instances = {each.instance_id: each for each in found.instances}
        self._unwritten.clear()

    # --- the fleet --------------------------------------------------------------------------------

    def fleet(self, name: str) -> Mapping[str, Plain]:
        """Return what is decided under a name of ``fleet_decisions``; empty: nothing."""
        return self._fleet.get(name, _NONE)

    def fleet_beginning(self, beginning: str) -> dict[str, Mapping[str, Plain]]:
        """Return the decisions about the fleet whose names begin so."""
        return {name: value for name, value in self._fleet.items() if name.startswith(beginning)}

    def decide(self, name: str, value: Mapping[str, Plain]) -> None:
        """Note a decision about the fleet; an empty one takes it back."""
        assert name in (POLICY, SHADOW, SPLITTING) or name.startswith(ADAPTER), name
        if value == self.fleet(name):
            return
        if value:
            self._fleet[name] = value
        else:
            self._fleet.pop(name, None)
        self._changed("fleet", name, value)

    # --- instances --------------------------------------------------------------------------------

    def instance(self, instance_id: str) -> InstanceDecision:
        """Return what is decided about an instance, which may be nothing."""
        return self._instances.get(instance_id) or InstanceDecision(instance_id=instance_id)

    def concerns(self, instance_id: str) -> bool:
        """Return whether anything is decided about an instance, or was and that is not written down yet."""
        return instance_id in self._instances or ("instance", instance_id) in self._unwritten

    def drained(self, instance_id: str) -> bool:
        """Return whether an operator drained the instance and did not resume it."""
        found = self._instances.get(instance_id)
        return found is not None and found.drained

    def of_others(self, known: Container[str]) -> list[InstanceDecision]:
        """Return the decisions about instances that are not among ``known``, sorted by id."""
        return [self._instances[each] for each in sorted(self._instances) if each not in known]

    def drain(self, instance_id: str, reason: str) -> None:
        """Note that an operator drained an instance."""
        self._put(replace(self.instance(instance_id), drained=True, drain_reason=reason))

    def resume(self, instance_id: str) -> None:
        """Note that an operator took the drain back."""
        self._put(replace(self.instance(instance_id), drained=False, drain_reason=""))

    def take_back(self, instance_id: str) -> None:
        """Note that nothing is decided about an instance any more."""
        self._put(InstanceDecision(instance_id=instance_id))

    def set_role(self, instance_id: str, role: InstanceRole | None) -> None:
        """Note the role that an operator gave; None: the executor's own."""
        self._put(replace(self.instance(instance_id), role=role))

    def forget(self, instance_id: str) -> bool:
        """Drop what is decided about an instance that is forgotten, unless it outlives it.

        Returns whether a drain was dropped.
        """
        if self.lasting:
            return False
        found = self._instances.pop(instance_id, None)
        return found is not None and found.drained

    def _put(self, decision: InstanceDecision) -> None:
        instance_id = decision.instance_id
        if decision == self.instance(instance_id):
            return
        self._instances.pop(instance_id, None)
        if not decision.is_empty:
            self._instances[instance_id] = decision
        self._changed("instance", instance_id, decision)
        if len(self._instances) > INSTANCES_LIMIT:
            oldest = next(iter(self._instances))
            log.warning("%d instances have decisions of operators: that about %s is dropped", INSTANCES_LIMIT, oldest)
            self._put(InstanceDecision(instance_id=oldest))

    # --- writing ----------------------------------------------------------------------------------

    def _changed(self, kind: str, name: str, value: Mapping[str, Plain] | InstanceDecision) -> None:
        if self._store is not None:
            self._unwritten[kind, name] = value

    def not_kept(self, name: str) -> str:
        """Return why a decision about the fleet is not in the journal, in words; empty if it is, or without one."""
        return self._trouble or NOT_YET if ("fleet", name) in self._unwritten else ""

    def instance_not_kept(self, instance_id: str) -> str:
        """Return the same of the decision about an instance."""
        return self._trouble or NOT_YET if ("instance", instance_id) in self._unwritten else ""

    async def write(self) -> None:
        """Write what changed.  What cannot be written now is tried again every RETRY_S, by ``run``."""
        if self._store is None or not self._unwritten:
            return
        writing = dict(self._unwritten)
        try:
            await self._save(self._store, writing)
        except JournalUnavailable as error:
            self._note_trouble(error.why)
        except Exception:  # of one of them: the others must not wait for it
            for key, value in writing.items():
                await self._write_alone(self._store, {key: value})
        else:
            self._trouble = ""

    async def _write_alone(self, store: DecisionStore, one: _Unwritten) -> None:
        try:
            await self._save(store, one)
        except JournalUnavailable as error:
            self._note_trouble(error.why)
        except Exception as error:
            self._note_trouble(f"the journal does not take it: {error}")

    async def _save(self, store: DecisionStore, writing: _Unwritten) -> None:
        await store.save(_as_changes(writing))
        for key, value in writing.items():
            if self._unwritten.get(key) is value:
                del self._unwritten[key]

    def _note_trouble(self, why: str) -> None:
        if why != self._trouble:
            log.warning("decisions of operators are in force, and not written: %s", why)
        self._trouble = why

    async def run(self) -> None:
        """Write what could not be written, until cancelled."""
        while True:
            await self._clock.sleep(RETRY_S)
            await self.write()


def _as_changes(unwritten: _Unwritten) -> Decisions:
    return Decisions(
        fleet={name: each for (_, name), each in unwritten.items() if not isinstance(each, InstanceDecision)},
        instances=tuple(each for each in unwritten.values() if isinstance(each, InstanceDecision)),
    )
