"""The instances of a simulation: they join, fail, drain and leave, and form pairs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from sage_simulator.attempt_runner import AttemptRunner
from sage_simulator.event_queue import EventQueue
from sage_simulator.executor_model import ExecutorModel, SchedulerSide
from sage_simulator.fleet_event import FleetChange, FleetEvent, instance_id_of
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.simulation_settings import SimulationError, SimulationSettings
from sage_simulator.speed_probe import measured
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

RECONNECT_GRACE_S = 0.3  # from a broken stream to the loss of the instance, the service's default
_WARM_UP_BLOCKS = 2  # of a warm-up's prompt, as in the service


class ModelledFleet:
    """Registers instances with the scheduler and changes the fleet at the times of its events."""

    def __init__(
        self,
        scheduler: Scheduler,
        events: EventQueue,
        settings: SimulationSettings,
        side: SchedulerSide,
        *,
        models: Sequence[str],
    ) -> None:
        """``models``: that requests ask for.  ``start`` brings the instances up."""
        self._scheduler = scheduler
        self._events = events
        self._settings = settings
        self._side = side
        self._models = models
        self._draining: set[str] = set()
        self.executors: dict[str, ExecutorModel] = {}  # by instance id; those that are gone, too, not those that start
        self._numbers = count()  # of the ids of the fleet's instances and of those that events add
        self._further_numbers = count()  # of the ids of those that are launched: events do not name them

    def start(self, fleet: Sequence[InstanceModel], runner: AttemptRunner, changed: Callable[[], None]) -> None:
        """Bring the instances up, and enter the events.

        ``changed``: called after each change.  Raises SimulationError for an event of an instance that is not there.
        """
        self._runner = runner
        self._changed = changed
        for number, instance in enumerate(fleet):
            self._join(instance, number / len(fleet))
        known = len(fleet)
        for event in sorted(self._settings.events, key=lambda each: each.at_s):
            if event.change is FleetChange.ADD:
                known += len(event.added)
                for instance in event.added:
                    self._model_of(instance)
            elif event.instance_id not in map(instance_id_of, range(known)):
                there = f"{instance_id_of(0)} to {instance_id_of(known - 1)}"
                raise SimulationError(
                    f"event: no instance {event.instance_id!r} at {event.at_s:g} s; there are {there}"
                )
            self._events.at(event.at_s, self._play, event)
        self._further_numbers = count(known)

    @property
    def shrank(self) -> bool:
        """Whether an instance has left or drains."""
        return bool(self._draining) or any(not each.up for each in self.executors.values())

    def finish_drains(self) -> None:
        """Let the instances go that drain and have nothing left."""
        for instance_id in sorted(self._draining):
            if not self._runner.on_instance(instance_id):
                self._draining.discard(instance_id)
                self._scheduler.transition(instance_id, InstanceState.DRAINED, "has nothing left", self._events.now)
                self.executors[instance_id].leave()

    def prove_pairs(self) -> None:
        """Prove the pairs that are due, each by the handoff that a warm-up would do on idle engines."""
        if not self._scheduler.pd_settings.enabled:
            return
        self._scheduler.renew_pairs()
        for pair in self._scheduler.pairs_due(self._events.now):
            self._scheduler.handed_over(pair, self._handoff_s(self.executors[pair.decode.instance_id].model))

    # ------------------------------------------------------------------ changes

    def _play(self, event: FleetEvent) -> None:
        if event.change is FleetChange.ADD:
            for number, instance in enumerate(event.added):
                self._join(instance, number / len(event.added))
        elif self.executors[event.instance_id].up:
            (self._fail if event.change is FleetChange.FAIL else self.drain)(event.instance_id)
        self._changed()

    def launch(self, instance: InstanceModel, warm_up_s: float) -> None:
        """Start an instance, which is READY after ``warm_up_s`` and there, and paid for, from now on."""
        now, instance_id = self._events.now, self._register(instance, self._further_numbers)
        self._scheduler.transition(instance_id, InstanceState.LOADING, "its engine starts", now)
        self._events.after(warm_up_s, self._launched, instance_id, instance, now)

    def _launched(self, instance_id: str, instance: InstanceModel, began_at: float) -> None:
        self._bring_up(instance_id, instance, 0.5)
        self.executors[instance_id].up_from_s = began_at
        self._changed()

    def is_up(self, instance_id: str) -> bool:
        """Whether an instance runs and does not drain."""
        executor = self.executors.get(instance_id)
        return executor is not None and executor.up and instance_id not in self._draining

    def _join(self, instance: InstanceModel, phase: float) -> None:
        """Add an instance that is READY at once.  ``phase``: share of an interval to its first heartbeat."""
        self._bring_up(self._register(instance, self._numbers), instance, phase)

    def _register(self, instance: InstanceModel, numbers: Iterator[int]) -> str:
        """Register an instance under the next of the numbers, and return its id."""
        instance_id = instance_id_of(next(numbers))
        spec = InstanceSpec(
            instance_id=instance_id,
            model=self._model_of(instance),
            role=instance.role,
            engine_start_id="1",
            price_per_hour=instance.price_per_hour,
        )
        self._scheduler.register(spec, self._events.now)
        return instance_id

    def _bring_up(self, instance_id: str, instance: InstanceModel, phase: float) -> None:
        """Have an instance be READY.  ``phase``: share of an interval to its first heartbeat."""
        now, settings = self._events.now, self._settings
        self._scheduler.engine_ready(instance_id, self._facts_of(instance_id, instance), now)
        self.executors[instance_id] = ExecutorModel(
            instance_id,
            instance,
            self._events,
            self._side,
            heartbeats=settings.heartbeats,
            delay_s=settings.network_delay_s,
            first_heartbeat_s=now + phase * settings.heartbeats.interval_s,
            kv_transfer=settings.kv_transfer,
            noise=self._noise_of(instance_id),
        )
        self.prove_pairs()

    def _facts_of(self, instance_id: str, instance: InstanceModel) -> EngineFacts:
        """Return what an instance's executor tells of its engine.  A warm-up contains the time that measuring takes."""
        facts = instance.facts()
        if not self._settings.measures_speed:
            return facts
        found = measured(facts, instance.pace_here, self._noise_of(f"{instance_id}/measured"))
        return replace(facts, measured=found)

    def _noise_of(self, name: str) -> Callable[[], float] | None:
        """Return the factors of an engine's steps.  ``name``: those of different names differ."""
        sigma = self._settings.noise
        return _noise(sigma, random.Random(f"{self._settings.seed}/{name}")) if sigma else None

    def _model_of(self, instance: InstanceModel) -> str:
        if instance.model:
            return instance.model
        if len(self._models) > 1:
            raise SimulationError(f"an instance without a model, and requests for {', '.join(self._models)}")
        return self._models[0]

    def _fail(self, instance_id: str) -> None:
        """Have an executor die: its streams break, and after the grace it is lost."""
        self._draining.discard(instance_id)
        self.executors[instance_id].leave()
        self._events.after(self._settings.network_delay_s, self._broken, instance_id)

    def _broken(self, instance_id: str) -> None:
        self._scheduler.transition(instance_id, InstanceState.SUSPECT, "a stream broke", self._events.now)
        self._events.after(RECONNECT_GRACE_S, self._lose, instance_id)

    def _lose(self, instance_id: str) -> None:
        self._scheduler.transition(instance_id, InstanceState.LOST, "its executor is gone", self._events.now)
        self._runner.lose(instance_id, "its executor is gone")
        self._scheduler.renew_pairs()
        self._changed()

    def drain(self, instance_id: str) -> None:
        """Let an instance finish what it has and leave."""
        self._scheduler.transition(instance_id, InstanceState.DRAINING, "an operator drains it", self._events.now)
        self._draining.add(instance_id)

    def _handoff_s(self, decoder: InstanceModel) -> float:
        """Return the seconds from prefill's end to decode's first token on an idle engine."""
        tokens = _WARM_UP_BLOCKS * decoder.kv_block_size - 1
        transfer = self._settings.kv_transfer
        wire_s = transfer.wire_s(tokens, decoder.kv_bytes_per_token) + transfer.latency_s
        return wire_s + decoder.pace_here.iteration_s(1, 1, tokens) + 2 * self._settings.network_delay_s


def _noise(sigma: float, source: random.Random) -> Callable[[], float]:
    """Make factors of steps' times: log-normal with mean 1."""
    return lambda: math.exp(source.gauss(-sigma * sigma / 2, sigma))
