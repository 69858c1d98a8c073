"""A modelled executor: an engine, the way to the scheduler, heartbeats, KV from other engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sage_simulator.engine_model import EngineModel
from sage_simulator.event_queue import EventQueue
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.heartbeats import HeartbeatMaker, HeartbeatTimes
from sage_simulator.kv_transfer import KvTransfer
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prefixes.cache_report import CacheReport


class SchedulerSide(Protocol):
    """What an executor tells the scheduler; called after the network's delay."""

    def heartbeat(self, instance_id: str, load: LoadReport) -> None:
        """Take a heartbeat."""
        ...

    def cache_changed(self, instance_id: str, report: CacheReport) -> None:
        """Take what changed in an engine's prefix cache."""
        ...

    def output(self, first: Sequence[int], ended: Sequence[int]) -> None:
        """Take a step's output: the attempts with their first token, and those that finished."""
        ...

    def aborted(self, attempt_number: int, emitted_tokens: int) -> None:
        """Take the end of an attempt that was aborted."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class KvSource:
    """Where a decode leg's KV lies."""

    executor: ExecutorModel
    attempt_number: int  # of the prefill leg that left it there


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """One attempt as it is sent to an executor."""

    attempt_number: int
    request: TracedRequest
    emitted_tokens: int = 0  # by earlier attempts: they belong to the prompt now
    output_tokens: int  # that this attempt emits
    priority: int
    keeps_kv: bool = False  # a prefill leg
    source: KvSource | None = None  # of a decode leg


class ExecutorModel:
    """Runs one engine in virtual time.  Everything between it and the scheduler takes ``delay_s``, either way."""

    def __init__(
        self,
        instance_id: str,
        model: InstanceModel,
        events: EventQueue,
        scheduler_side: SchedulerSide,
        *,
        heartbeats: HeartbeatTimes,
        delay_s: float,
        first_heartbeat_s: float,
        kv_transfer: KvTransfer | None = None,
        noise: Callable[[], float] | None = None,
    ) -> None:
        self.instance_id = instance_id
        self.model = model
        self.engine = EngineModel(model.facts(), model.pace_here, prefix_caching=model.prefix_caching, noise=noise)
        self.up = True
        self.up_from_s = events.now
        self.up_until_s: float | None = None  # None: to the end
        self.assigned = 0  # Assigns sent to it so far
        self.heartbeats = 0
        self.running_s = 0.0  # seconds of running, summed over sequences
        self.first_used_at: float | None = None
        self.last_used_at = 0.0
        self.recomputed: set[int] = set()  # attempts whose KV did not come
        self._events = events
        self._scheduler_side = scheduler_side
        self._times = heartbeats
        self._delay_s = delay_s
        self._kv_transfer = kv_transfer or KvTransfer()
        self._heartbeat_maker = HeartbeatMaker(self.engine, heartbeats.interval_s)
        self._last_assign = 0  # number of the last Assign that the engine has
        self._load_changed = False  # since the last heartbeat
        self._may_beat = False  # the gap after the last heartbeat is over
        self._aborts: list[int] = []  # that wait for the end of the step
        self._block_tokens = 0  # prompt tokens that each prefix hash stands for; 0 before the first
        self._sources: dict[int, KvSource] = {}  # of decode legs, until they have fetched
        self._link_free_at = 0.0  # when the transfers that have begun are over
        events.at(first_heartbeat_s, self._beat)

    def assign(self, assignment: Assignment) -> int:
        """Send an attempt to the engine.  Returns the number of the Assign."""
        self.assigned += 1
        self._events.after(self._delay_s, self._submit, self.assigned, assignment)
        return self.assigned

    def abort(self, attempt_number: int) -> None:
        """Have the engine drop an attempt; ``aborted`` follows unless it had finished."""
        self._events.after(self._delay_s, self._abort, attempt_number)

    def release_kv(self, attempt_number: int) -> None:
        """Have the engine free the KV that a prefill leg left behind."""
        self._events.after(self._delay_s, self._release_kv, attempt_number)

    def leave(self) -> None:
        """Be gone, at once: nothing more is computed or sent, and what is sent here is lost."""
        self.up = False
        self.up_until_s = self._events.now

    # ------------------------------------------------------------------ the engine

    def _submit(self, assign_number: int, assignment: Assignment) -> None:
        if not self.up:
            return
        request = assignment.request
        if assignment.source is not None:
            self._sources[assignment.attempt_number] = assignment.source
        self.engine.add(
            assignment.attempt_number,
            prompt_tokens=request.prompt_tokens + assignment.emitted_tokens,
            output_tokens=assignment.output_tokens,
            priority=assignment.priority,
            prefixes=request.block_hashes,
            prefix_tokens=request.block_tokens,
            keeps_kv=assignment.keeps_kv,
            fetches_kv=assignment.source is not None,
        )
        self._last_assign = assign_number
        if request.block_hashes:
            self._block_tokens = request.block_tokens
        if self.first_used_at is None:
            self.first_used_at = self._events.now
        self._note_change()
        self._go_on()

    def _abort(self, attempt_number: int) -> None:
        self._aborts.append(attempt_number)
        self._go_on()

    def _release_kv(self, attempt_number: int) -> None:
        self.engine.release_kv(attempt_number)
        self._go_on()  # it may be what waiting ones need

    def _go_on(self) -> None:
        """Start the next step unless one runs or there is nothing to compute."""
        if self.engine.busy or not self.up:
            return
        for attempt_number in self._aborts:
            emitted = self.engine.abort(attempt_number)
            if emitted is not None:
                self._sources.pop(attempt_number, None)
                self._note_use()
                self._events.after(self._delay_s, self._scheduler_side.aborted, attempt_number, emitted)
        self._aborts.clear()
        step_s = self.engine.start_step()
        for attempt_number, tokens in self.engine.take_fetches():
            self._fetch(attempt_number, tokens)
        if step_s is not None:
            self.running_s += step_s * self.engine.running
            self._events.after(step_s, self._step_over)

    def _step_over(self) -> None:
        if not self.up:
            return
        output = self.engine.finish_step()
        if output.first or output.ended:
            self._events.after(self._delay_s, self._scheduler_side.output, output.first, output.ended)
        if output.ended:
            self._note_use()
        self._go_on()

    def _note_use(self) -> None:
        self.last_used_at = self._events.now
        self._note_change()

    # ------------------------------------------------------------------ KV of other engines

    def _fetch(self, attempt_number: int, tokens: int) -> None:
        """Begin a transfer.  All transfers share the bandwidth, so one takes the link after the other."""
        transfer = self._kv_transfer
        self._link_free_at = max(self._link_free_at, self._events.now)
        self._link_free_at += transfer.wire_s(tokens, self.model.kv_bytes_per_token)
        self._events.at(self._link_free_at + transfer.latency_s, self._transferred, attempt_number)

    def _transferred(self, attempt_number: int) -> None:
        source = self._sources.pop(attempt_number, None)
        if source is None or not self.up:  # it was aborted
            return
        if source.executor.up:
            source.executor.release_kv(source.attempt_number)
            self.engine.fetched(attempt_number)
        else:
            self.recomputed.add(attempt_number)
            self.engine.fetch_failed(attempt_number)
        self._go_on()

    # ------------------------------------------------------------------ heartbeats

    def _note_change(self) -> None:
        self._load_changed = True
        if self._may_beat:
            self._beat()

    def _beat(self) -> None:
        if not self.up:
            return
        self.heartbeats += 1
        self._may_beat = self._load_changed = False
        load = self._heartbeat_maker.make(self._last_assign, self._events.now)
        self._events.after(self._delay_s, self._scheduler_side.heartbeat, self.instance_id, load)
        self._events.after(self._times.gap_s, self._gap_over)
        if self.model.cache_events:
            self._report_cache()

    def _report_cache(self) -> None:
        stored, removed = self.engine.kv.take_changes()
        if stored or removed:
            report = CacheReport(block_tokens=self._block_tokens, stored=stored, removed=removed)
            self._events.after(self._delay_s, self._scheduler_side.cache_changed, self.instance_id, report)

    def _gap_over(self) -> None:
        self._may_beat = True
        if self._load_changed:
            self._beat()
        else:
            self._events.after(self._times.interval_s - self._times.gap_s, self._beat_at_last, self.heartbeats)

    def _beat_at_last(self, after_heartbeat: int) -> None:
        if self.heartbeats == after_heartbeat:
            self._beat()
