"""Two schedulers to which the same happens at random; one of them decides everything from scratch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import fields
from random import Random
from typing import Any

from scheduler_svc.domain.decision import Candidate, Decision, PrefillLeg
from scheduler_svc.domain.errors import SchedulerError
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.request import Request, RequestKey
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import MODEL, make_scheduler, put_in_state
from tests.unit.domain.from_scratch import from_scratch
from tests.unit.domain.random_values import (
    FleetKind,
    draw_adapters,
    draw_cache_report,
    draw_facts,
    draw_load,
    draw_request,
)

_ROLES = (InstanceRole.GENERAL, InstanceRole.HYBRID, InstanceRole.DECODING, InstanceRole.PREFILLING)
_STATES = (
    InstanceState.READY,
    InstanceState.READY,
    InstanceState.READY,
    InstanceState.SUSPECT,
    InstanceState.STALLED,
    InstanceState.DRAINING,
    InstanceState.SLEEPING,
)
_KEPT_DECISIONS = 40
_COMPARED_IN = 3  # compositions: those for whole requests, and those for either leg


class Twins:
    """Tells two schedulers the same, and has one of them schedule from scratch."""

    def __init__(self, rng: Random, policy: str) -> None:
        self.rng = rng
        self.now = 0.0
        self.kind = FleetKind.drawn(rng)
        mode = SplitMode.THRESHOLD if self.kind.splits else SplitMode.NEVER
        settings: dict[str, Any] = {
            "pd": PdSettings(mode=mode, threshold_input_tokens=150),
            "queue_limit_per_model": 40,
            "max_decisions_per_pass": rng.choice([3, 256]),
            "backfill_depth": rng.choice([1, 8]),
            "output_min_samples": 3,
        }
        self.quick = make_scheduler(policy, **settings)
        self.slow = make_scheduler(policy, **settings)
        self.ids = [f"i{n:02}" for n in range(rng.choice([1, 2, 4, 12]))]
        self.roles = {each: rng.choice(_ROLES) if self.kind.splits else InstanceRole.GENERAL for each in self.ids}
        self.engines = dict.fromkeys(self.ids, 0)
        self.facts = {each: draw_facts(self.rng, self.kind) for each in self.ids}
        self.running: dict[int, Decision] = {}
        self.legs: dict[int, PrefillLeg] = {}  # by the attempt of the decode leg
        self.requests: dict[RequestKey, Request] = {}
        self.waiting: set[RequestKey] = set()
        self.made = self.assigns = self.beats = self.decided = 0
        self.kept: deque[tuple[Decision, list[Candidate]]] = deque()  # with candidates written out from scratch
        for each in self.ids:
            self._start(each)

    def step(self) -> None:
        """Have something happen, and then both decide."""
        names = [*_OFTEN * 6, *_SELDOM, *([] if self.kind.busy else ["release"] * 24)]
        getattr(self, self.rng.choice(names))()
        if self.rng.random() < 0.7:
            self.schedule()

    def tell(self, what: Callable[[Scheduler], object]) -> object:
        """Tell both the same; return what both answer."""
        answers = []
        for scheduler in (self.quick, self.slow):
            try:
                answer = what(scheduler)
                answers.append(None if isinstance(answer, Instance) else answer)
            except SchedulerError as error:
                answers.append(f"{type(error).__name__}: {error}")
        assert answers[0] == answers[1]
        return answers[0]

    # --- decisions --------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Have both place what can be placed, and compare."""
        quick = self.quick.schedule(self.now)
        with from_scratch(self.slow):
            slow = self.slow.schedule(self.now)
            written = [list(each.candidates) for each in slow]
        assert [shown(each) for each in quick] == [shown(each) for each in slow]
        assert self.quick.take_policy_failures() == self.slow.take_policy_failures() == []
        assert self.quick.more == self.slow.more
        assert _aside(self.quick) == _aside(self.slow)
        for decision, candidates in zip(quick, written, strict=True):
            self.took(decision)
            self.kept.append((decision, candidates))
        while len(self.kept) > _KEPT_DECISIONS:
            self.check_kept()

    def took(self, decision: Decision) -> None:
        """Note that a request runs."""
        self.decided += 1
        self.waiting.remove(decision.key)
        self.running[decision.attempt_number] = decision
        if decision.prefill is not None:
            self.legs[decision.attempt_number] = decision.prefill

    def check_kept(self) -> None:
        """Write out the candidates of the decision that is oldest: they are what they were."""
        decision, candidates = self.kept.popleft()
        head = self.rng.randint(0, len(candidates))
        assert list(decision.candidates.head(head)) == candidates[:head]  # type: ignore[attr-defined]
        assert list(decision.candidates) == candidates

    # --- requests ---------------------------------------------------------------------------------

    def enqueue(self) -> None:
        self.made += 1
        request = draw_request(self.rng, self.kind, self.made, self.now, preferred=self.ids[0])
        alone = self.rng.random() < 0.01
        answer = self.tell(lambda s: s.enqueue(request, self.now, alone=alone))
        displaced = self.tell(lambda s: [key for key, _ in s.take_displaced()])
        assert isinstance(displaced, list)
        self.waiting -= set(displaced)
        if answer is None:
            self.requests[request.key] = request
            self.waiting.add(request.key)

    def withdraw(self) -> None:
        if self.waiting:
            key = self.rng.choice(sorted(self.waiting))
            self.waiting.remove(key)
            assert self.tell(lambda s: s.withdraw(key, self.now)) is True

    def give_up(self) -> None:
        found = self.tell(lambda s: [key for key, _ in s.given_up(self.now)])
        assert isinstance(found, list)
        for key in found:
            self.tell(lambda s, key=key: s.withdraw(key, self.now))  # type: ignore[misc]
            self.waiting.remove(key)

    def first_token(self) -> None:
        if attempt := self._draw_attempt():
            self.tell(lambda s: s.first_token(attempt, self.now))

    def progress(self) -> None:
        if attempt := self._draw_attempt():
            tokens = self.rng.randint(1, 200)
            self.tell(lambda s: s.progress(attempt, tokens))

    def release(self) -> None:
        if attempt := self._draw_attempt():
            decision, tokens = self.running.pop(attempt), self.rng.randint(0, 100)
            self._end_leg(attempt)
            finished = self.rng.random() < 0.8
            self.tell(lambda s: s.release(attempt, self.now, output_tokens=tokens or None, finished=finished))
            self.tell(lambda s: s.share_instance(attempt))
            if not finished:
                self._resume(decision, tokens)

    def _resume(self, decision: Decision, tokens: int) -> None:
        request = self.requests[decision.key]
        emitted = min(tokens, request.sampling.max_tokens - 1)
        avoid = frozenset({decision.instance_id}) if self.rng.random() < 0.7 else frozenset[str]()
        instance = self.quick.find_instance(decision.instance_id)
        facts = instance.facts if instance is not None else None
        identity = facts.identity_for(request.adapter) if facts is not None and emitted else None
        self.tell(
            lambda s: s.enqueue(
                request, self.now, emitted_tokens=emitted, excluded=avoid, resumed=True, identity=identity
            )
        )
        self.waiting.add(decision.key)

    def park(self) -> None:
        """Have the prefill leg of a split request end."""
        if self.legs:
            leg = self.rng.choice(sorted(self.legs.values(), key=lambda leg: leg.attempt_number))
            self.tell(lambda s: s.park(leg.attempt_number, self.now))

    def _end_leg(self, attempt: int) -> None:
        leg = self.legs.pop(attempt, None)
        if leg is not None:
            self.tell(lambda s: s.release(leg.attempt_number, self.now, output_tokens=None, finished=False))

    def _draw_attempt(self) -> int:
        return self.rng.choice(sorted(self.running)) if self.running else 0

    # --- instances --------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        name, rng = self._draw_id(), self.rng
        self.beats += 1
        if rng.random() < 0.7:
            for attempt, decision in self.running.items():
                if decision.instance_id == name:
                    self.assigns += 1
                    self.tell(lambda s, a=attempt: s.assigned(a, self.assigns))  # type: ignore[misc]
        load = draw_load(rng, self.beats, self.assigns)
        self.tell(lambda s: s.report(name, load, self.now))

    def report_cache(self) -> None:
        name, report = self._draw_id(), draw_cache_report(self.rng)
        self.tell(lambda s: s.report_cache(name, report))

    def change_state(self) -> None:
        name, state = self._draw_id(), self.rng.choice(_STATES)
        if state is InstanceState.SLEEPING:
            self._lose(name)
        self.tell(lambda s: put_in_state(s, name, state, self.now))

    def set_role(self) -> None:
        name, role = self._draw_id(), self.rng.choice(_ROLES)
        self.tell(lambda s: s.set_role(name, role))

    def set_adapters(self) -> None:
        name, found = self._draw_id(), draw_adapters(self.rng)
        self.tell(lambda s: s.set_adapters(name, found))

    def register_again(self) -> None:
        """Have an executor reconnect, with another price."""
        name = self._draw_id()
        self._register(name)
        if self.rng.random() < 0.5:
            self.tell(lambda s: s.engine_ready(name, self.facts[name], self.now))

    def new_engine(self) -> None:
        name = self._draw_id()
        self._lose(name)
        self.engines[name] += 1
        self.facts[name] = draw_facts(self.rng, self.kind)
        self._start(name)

    def go_and_come(self) -> None:
        name = self._draw_id()
        self._lose(name)
        self.tell(lambda s: s.forget(name))
        self.schedule()
        self._start(name)

    def check_bounds(self) -> None:
        """Check that nothing is kept of compositions and reservations that are over."""
        for instance in self.quick.instances():
            assert len(instance.account._watches) <= _COMPARED_IN
        assert self.quick.live_attempts() == len(self.running) + len(self.legs)
        assert len(self.quick._charges._charges) <= len(self.running)

    def _draw_id(self) -> str:
        return self.rng.choice(self.ids)

    def _lose(self, name: str) -> None:
        lost = self.tell(lambda s: s.lose(name, "as the test wants", self.now))
        assert isinstance(lost, list)
        for attempt in lost:
            if attempt in self.running:
                self._end_leg(attempt)
                self._resume(self.running.pop(attempt), 1)
        self.legs = {of: leg for of, leg in self.legs.items() if leg.attempt_number not in lost}

    def _start(self, name: str) -> None:
        self._register(name)
        self.tell(lambda s: s.engine_ready(name, self.facts[name], self.now))
        self.prove_pairs()

    def prove_pairs(self) -> None:
        """Have a handoff work between each two instances that can hand over."""
        for scheduler in (self.quick, self.slow):
            scheduler.renew_pairs()
            for pair in scheduler.pairs():
                scheduler.handed_over(pair, 0.01)

    def _register(self, name: str) -> None:
        price, start = self.rng.choice([0.0, 1.0, 2.0]), str(self.engines[name])
        spec = InstanceSpec(
            instance_id=name, model=MODEL, role=self.roles[name], engine_start_id=start, price_per_hour=price
        )
        self.tell(lambda s: s.register(spec, self.now))

    # --- the rest ---------------------------------------------------------------------------------

    def time_passes(self) -> None:
        self.now += self.rng.choice([0.001, 0.05, 1.0, 12.0])
        self.tell(lambda s: [v.instance_id for v in s.check_health(self.now)])

    def set_policy(self) -> None:
        name = self.rng.choice(["fifo", "priority", "slo_aware", "cost_optimized"])
        self.tell(lambda s: s.set_policy(name, self.now, "as the test wants"))


_OFTEN = ("enqueue", "enqueue", "enqueue", "first_token", "release", "heartbeat", "time_passes")
_SELDOM = (
    "withdraw",
    "give_up",
    "progress",
    "park",
    "prove_pairs",
    "report_cache",
    "change_state",
    "set_role",
    "set_adapters",
    "register_again",
    "new_engine",
    "go_and_come",
    "set_policy",
)


def shown(decision: Decision) -> dict[str, object]:
    """Return what a decision says, candidates apart."""
    return {each.name: getattr(decision, each.name) for each in fields(decision) if each.name != "candidates"}


def _aside(scheduler: Scheduler) -> list[RequestKey]:
    pool = scheduler._registry.find_pool(MODEL)
    return [each.request.key for each in pool.queue.aside] if pool is not None and pool.queue is not None else []
