"""A scheduler over modelled engines in virtual time: what a policy does, without an engine or a clock."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import TRANSITIONS, InstanceState
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.request import Request, RequestKey, Sampling
from scheduler_svc.domain.scheduler import Scheduler, SchedulerSettings

MODEL = "tiny"
PREFILL_TOKEN_S = 1e-4
STEP_S = 1e-2


#: What an executor measured whose engine takes 20 ms for a step, and 0.1 ms for each prompt token in it.
MEASURED = tuple(
    IterationSample(
        prefill_tokens=prompt,
        decode_tokens=0 if prompt else running,
        running=running,
        kv_used_tokens=100,
        elapsed_s=0.02 + 1e-4 * prompt,
    )
    for prompt, running in ((1_024, 1), (0, 1), (512, 8), (0, 8))
)


def make_facts(**changes: Any) -> EngineFacts:
    """Make the facts of an engine that runs four sequences at once, with changes."""
    values: dict[str, Any] = {
        "engine": "modelled",
        "engine_version": "1",
        "vocab_size": 1_000,
        "max_model_len": 8_192,
        "kv_capacity_tokens": 65_536,
        "max_running": 4,
        "max_batched_tokens": 2_048,
        "supports_priority": True,
        "prefix_caching": True,
    }
    return EngineFacts(**values | changes)


def make_request(request_id: object, *, prompt: int = 32, output: int = 32, **changes: Any) -> Request:
    """Make a request with a prompt of ``prompt`` tokens and ``max_tokens`` of ``output``."""
    values: dict[str, Any] = {
        "key": RequestKey(tenant="t", request_id=str(request_id)),
        "model": MODEL,
        "prompt_token_ids": range(prompt),
        "sampling": Sampling(max_tokens=output),
        "arrived_at": 0.0,
    }
    return Request(**values | changes)


def make_scheduler(
    policy: str = "fifo", *, instances: int = 0, policies: PolicyCatalogue | None = None, **settings: Any
) -> Scheduler:
    """Make a scheduler with so many equal READY instances ``i0``, ``i1`` ...

    It accepts requests whose deadline cannot be met, so that a policy has to place whatever arrives.
    """
    values = {"refuse_hopeless": False, **settings}
    scheduler = Scheduler(SchedulerSettings(policy=policy, **values), policies or PolicyCatalogue())
    for n in range(instances):
        add_instance(scheduler, f"i{n}")
    return scheduler


def add_instance(
    scheduler: Scheduler,
    instance_id: str,
    *,
    now: float = 0.0,
    facts: EngineFacts | None = None,
    model: str = MODEL,
    **spec: Any,
) -> None:
    """Register an instance and have its engine say that it is ready."""
    scheduler.register(InstanceSpec(instance_id=instance_id, model=model, engine_start_id="1", **spec), now)
    scheduler.engine_ready(instance_id, facts or make_facts(), now)


def make_load(number: int = 1, samples: tuple[IterationSample, ...] = (), **changes: Any) -> LoadReport:
    """Make a heartbeat of an engine that runs nothing; ``number`` counts its iterations, too."""
    values: dict[str, Any] = {
        "number": number,
        "last_assign": 0,
        "running": 0,
        "waiting": 0,
        "unfinished": 0,
        "kv_used_tokens": 0,
        "iterations": number,
        "samples": samples,
    }
    return LoadReport(**values | changes)


def press(scheduler: Scheduler, now: float, *, prefill: float = 0.0, decode: float = 0.0) -> None:
    """Have many recent split requests use these shares: of their TTFT targets for the wait, of their TPOT targets."""
    (pool,) = scheduler._registry.pools()
    legs = pool.legs
    for _ in range(50):
        legs.split(now, wait_share=prefill, token_share=decode)


def put_in_state(scheduler: Scheduler, instance_id: str, state: InstanceState, now: float = 0.0) -> None:
    """Take an instance to a state, through whatever states lie between."""
    ways: list[tuple[InstanceState, ...]] = [(scheduler.instance(instance_id).state,)]
    for way in ways:  # grows: breadth first
        if way[-1] is state:
            for step in way[1:]:
                scheduler.transition(instance_id, step, "as the test wants", now)
            return
        ways += [(*way, after) for after in InstanceState if after in TRANSITIONS[way[-1]] and after not in way]


@dataclass
class ModelledEngine:
    """Runs up to ``max_running`` sequences; each takes as long as it takes, whatever the company."""

    running: set[int] = field(default_factory=set)
    queued: list[tuple[int, int]] = field(default_factory=list)  # heap of engine priority, attempt number


class ModelledFleet:
    """Plays arrivals and ends in virtual time and notes what became of every request."""

    def __init__(self, scheduler: Scheduler, *, heartbeat_s: float | None = None) -> None:
        self.scheduler = scheduler
        self.now = 0.0
        self.decisions: list[Decision] = []
        self.placed_at: dict[RequestKey, float] = {}
        self.ended: Counter[RequestKey] = Counter()
        self.after_pass: Callable[[], None] = lambda: None
        self.generates: Callable[[Request], int] = lambda request: request.sampling.max_tokens  # output tokens
        self._engines: dict[str, ModelledEngine] = {}
        self._live: dict[int, Decision] = {}
        self._requests: dict[RequestKey, Request] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_number = 0
        self._heartbeat_s = heartbeat_s
        self._beats = 0
        if heartbeat_s is not None:
            self.at(heartbeat_s, self._beat)

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something happen at a time, in seconds."""
        self._event_number += 1
        heapq.heappush(self._events, (when, self._event_number, what))

    def arrive(self, request: Request) -> None:
        """Have a request arrive at its ``arrived_at``."""
        self.at(request.arrived_at, lambda: self._arrive(request))

    def run(self, until: float = float("inf")) -> None:
        """Play all events up to ``until``; without it, until nothing happens any more."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
            if not self._events or self._events[0][0] > self.now:
                self._pass()

    @property
    def by_instance(self) -> Counter[str]:
        """Decisions per instance."""
        return Counter(d.instance_id for d in self.decisions)

    def waits(self) -> dict[RequestKey, float]:
        """Seconds from arrival to placement."""
        return {key: at - self._requests[key].arrived_at for key, at in self.placed_at.items()}

    def request(self, key: RequestKey) -> Request:
        """Return a request that arrived."""
        return self._requests[key]

    def waiting_of(self, tenant: str) -> int:
        """Count the requests of a tenant that arrived and were not placed."""
        return sum(key.tenant == tenant and key not in self.placed_at for key in self._requests)

    def _arrive(self, request: Request) -> None:
        self._requests[request.key] = request
        self.scheduler.enqueue(request, self.now)

    def _pass(self) -> None:
        while True:
            for decision in self.scheduler.schedule(self.now):
                self._assign(decision)
            if not self.scheduler.more:
                break
        self.after_pass()

    def _assign(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self.placed_at[decision.key] = self.now
        self.scheduler.assigned(decision.attempt_number, decision.attempt_number)
        self._live[decision.attempt_number] = decision
        engine = self._engines.setdefault(decision.instance_id, ModelledEngine())
        heapq.heappush(engine.queued, (decision.engine_priority, decision.attempt_number))
        self._feed(decision.instance_id, engine)

    def _feed(self, instance_id: str, engine: ModelledEngine) -> None:
        facts = self.scheduler.instance(instance_id).facts
        assert facts is not None
        while engine.queued and len(engine.running) < facts.max_running:
            _, attempt = heapq.heappop(engine.queued)
            engine.running.add(attempt)
            request = self._requests[self._live[attempt].key]
            prefill_s = STEP_S + request.prompt_tokens * PREFILL_TOKEN_S
            end_s = prefill_s + STEP_S * (self.generates(request) - 1)
            self.at(self.now + prefill_s, partial(self._first_token, attempt))
            self.at(self.now + end_s, partial(self._end, attempt))

    def _first_token(self, attempt: int) -> None:
        self.scheduler.first_token(attempt, self.now)

    def _end(self, attempt: int) -> None:
        decision = self._live.pop(attempt)
        output = self.generates(self._requests[decision.key])
        assert self.scheduler.release(attempt, self.now, output_tokens=output, finished=True)
        self.ended[decision.key] += 1
        engine = self._engines[decision.instance_id]
        engine.running.discard(attempt)
        self._feed(decision.instance_id, engine)

    def _beat(self) -> None:
        self._beats += 1
        for instance in self.scheduler.instances():
            engine = self._engines.get(instance.instance_id, ModelledEngine())
            self.scheduler.report(instance.instance_id, self._load(engine), self.now)
        if self._live or self._events:
            assert self._heartbeat_s is not None
            self.at(self.now + self._heartbeat_s, self._beat)

    def _load(self, engine: ModelledEngine) -> LoadReport:
        used = sum(self._requests[self._live[a].key].prompt_tokens for a in engine.running)
        return LoadReport(
            number=self._beats,
            last_assign=max(self._live, default=0),
            running=len(engine.running),
            waiting=len(engine.queued),
            unfinished=len(engine.running) + len(engine.queued),
            kv_used_tokens=used,
            iterations=int(self.now / STEP_S),
        )
