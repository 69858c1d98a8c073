"""Whatever happens in whatever order: nobody is lost or doubled, and reservations sum right."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.errors import Overloaded, QueueFull
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.policies.builtin import BUILTIN
from scheduler_svc.domain.request import Priority, Request, RequestKey
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import (
    MODEL,
    add_instance,
    make_facts,
    make_request,
    make_scheduler,
    put_in_state,
)

QUEUE_LIMIT = 12
INSTANCES = ("i0", "i1", "i2")
READYISH = (InstanceState.READY, InstanceState.SUSPECT, InstanceState.STALLED)

policies = st.sampled_from(sorted(BUILTIN))
instances = st.sampled_from(INSTANCES)


class CoreMachine(RuleBasedStateMachine):
    """Plays what control does, and keeps its own account of where every request is."""

    scheduler: Scheduler

    @initialize(policy=policies, max_running=st.integers(1, 3), capacity=st.sampled_from([600, 4_096]))
    def start(self, policy: str, max_running: int, capacity: int) -> None:
        self.scheduler = make_scheduler(
            policy, queue_limit_per_model=QUEUE_LIMIT, max_decisions_per_pass=4, backfill_depth=3, output_min_samples=3
        )
        for n, name in enumerate(INSTANCES):
            facts = make_facts(
                max_running=max_running,
                kv_capacity_tokens=capacity,
                max_model_len=512,
                kv_block_size=(16, 128, 1)[n],
                max_batched_tokens=256,
            )
            add_instance(self.scheduler, name, facts=facts, price_per_hour=float(n))
        self.now = 0.0
        self.made = 0
        self.assigns = 0
        self.requests: dict[RequestKey, Request] = {}
        self.waiting: set[RequestKey] = set()
        self.running: dict[int, Decision] = {}
        self.ended: set[RequestKey] = set()

    # --- what happens -----------------------------------------------------------------------------

    @rule(
        prompt=st.sampled_from([1, 16, 17, 200, 400]),
        output=st.integers(1, 100),
        priority=st.sampled_from(Priority),
        ttft=st.sampled_from([None, 0.01, 5.0]),
        deadline=st.sampled_from([None, 0.1, 50.0]),
        preferred=st.sampled_from(["", "i1", "nowhere"]),
    )
    def enqueue(
        self, prompt: int, output: int, priority: Priority, ttft: float | None, deadline: float | None, preferred: str
    ) -> None:
        self.made += 1
        request = make_request(
            self.made,
            prompt=prompt,
            output=output,
            priority=priority,
            arrived_at=self.now,
            ttft_target_s=ttft,
            deadline_at=None if deadline is None else self.now + deadline,
            preferred_instance=preferred,
        )
        try:
            self.scheduler.enqueue(request, self.now)
        except QueueFull:
            assert len(self.waiting) >= QUEUE_LIMIT
            return
        except Overloaded as refusal:
            assert (deadline is not None, refusal.cause) == (True, "deadline")  # noqa: PT017
            return
        for key, error in self.scheduler.take_displaced():
            assert self.requests[key].priority > priority
            assert error.cause == "displaced"
            self.waiting.remove(key)
            self.ended.add(key)
        self.requests[request.key] = request
        self.waiting.add(request.key)

    @rule()
    def schedule(self) -> None:
        decisions = self.scheduler.schedule(self.now)
        for decision in decisions:
            assert decision.key in self.waiting, "placed without waiting, or twice"
            assert decision.attempt_number not in self.running
            instance = self.scheduler.instance(decision.instance_id)
            assert instance.state is InstanceState.READY
            self.waiting.remove(decision.key)
            self.running[decision.attempt_number] = decision
            assert decision.reasons
            assert [c.instance_id for c in decision.candidates if c.chosen] == [decision.instance_id]
            account = instance.account
            if account.free_slots < 0:
                assert -account.free_slots <= account.lookahead

    @rule(data=st.data())
    def first_token(self, data: st.DataObject) -> None:
        if self.running:
            self.scheduler.first_token(data.draw(st.sampled_from(sorted(self.running))), self.now)

    @rule(data=st.data(), tokens=st.integers(1, 120))
    def progress(self, data: st.DataObject, tokens: int) -> None:
        if self.running:
            self.scheduler.progress(data.draw(st.sampled_from(sorted(self.running))), tokens)

    @rule(data=st.data(), tokens=st.integers(0, 120), finished=st.booleans())
    def release(self, data: st.DataObject, tokens: int, finished: bool) -> None:
        if not self.running:
            return
        attempt = data.draw(st.sampled_from(sorted(self.running)))
        decision = self.running.pop(attempt)
        assert self.scheduler.release(attempt, self.now, output_tokens=tokens or None, finished=finished)
        assert not self.scheduler.release(attempt, self.now, output_tokens=tokens or None, finished=finished)
        if finished:
            self.ended.add(decision.key)
        else:
            self.resume(decision, tokens)

    @rule(instance_id=instances)
    def lose(self, instance_id: str) -> None:
        lost = self.scheduler.lose(instance_id, "its executor died", self.now)
        ours = [a for a, d in self.running.items() if d.instance_id == instance_id]
        assert sorted(lost) == sorted(ours)
        for attempt in lost:
            self.resume(self.running.pop(attempt), 1)

    def resume(self, decision: Decision, emitted: int) -> None:
        request = self.requests[decision.key]
        emitted = min(emitted, request.sampling.max_tokens - 1)
        self.scheduler.enqueue(
            request, self.now, emitted_tokens=emitted, excluded=frozenset({decision.instance_id}), resumed=True
        )
        self.waiting.add(decision.key)

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        if not self.waiting:
            return
        key = data.draw(st.sampled_from(sorted(self.waiting, key=str)))
        assert self.scheduler.withdraw(key, self.now)
        assert not self.scheduler.withdraw(key, self.now)
        self.waiting.remove(key)
        self.ended.add(key)

    @rule()
    def give_up(self) -> None:
        for key, _ in self.scheduler.given_up(self.now):
            assert self.scheduler.withdraw(key, self.now)
            self.waiting.remove(key)
            self.ended.add(key)

    @rule(name=policies)
    def set_policy(self, name: str) -> None:
        previous, reordered = self.scheduler.set_policy(name, self.now, "the test says so")
        assert reordered == (len(self.waiting) if name != previous else 0)

    @rule(instance_id=instances, kv_used=st.integers(0, 700), sent=st.booleans(), elapsed=st.floats(1e-4, 1.0))
    def heartbeat(self, instance_id: str, kv_used: int, sent: bool, elapsed: float) -> None:
        if sent:
            for attempt, decision in self.running.items():
                if decision.instance_id == instance_id:
                    self.assigns += 1
                    self.scheduler.assigned(attempt, self.assigns)
        sample = IterationSample(
            prefill_tokens=10, decode_tokens=2, running=2, kv_used_tokens=kv_used, elapsed_s=elapsed
        )
        load = LoadReport(
            number=1,
            last_assign=self.assigns,
            running=1,
            waiting=0,
            unfinished=1,
            kv_used_tokens=kv_used,
            iterations=int(self.now * 10),
            samples=(sample,),
        )
        self.scheduler.report(instance_id, load, self.now)

    @rule(instance_id=instances, state=st.sampled_from(READYISH))
    def change_state(self, instance_id: str, state: InstanceState) -> None:
        put_in_state(self.scheduler, instance_id, state, self.now)

    @rule(seconds=st.sampled_from([0.001, 0.5, 11.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.tick(self.now)
        self.scheduler.check_health(self.now)

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def every_request_is_in_exactly_one_place(self) -> None:
        running = [d.key for d in self.running.values()]
        assert len(running) == len(set(running)), "two attempts of one request"
        assert self.waiting.isdisjoint(running)
        assert self.ended.isdisjoint(self.waiting)
        assert self.ended.isdisjoint(running)
        assert self.waiting | set(running) | self.ended == set(self.requests)
        assert self.scheduler.waiting(MODEL) == len(self.waiting)
        assert self.scheduler.live_attempts() == len(self.running)
        for key in self.waiting:
            assert self.scheduler.position(key, self.now) is not None

    @invariant()
    def positions_count_up_from_one(self) -> None:
        views = [self.scheduler.position(key, self.now) for key in self.waiting]
        assert sorted(v.position for v in views if v) == list(range(1, len(views) + 1))
        assert all(v.because and v.ordering_key for v in views if v)

    @invariant()
    def the_queue_counts_its_classes_and_bounds_its_garbage(self) -> None:
        queue = self.scheduler._registry.pool(MODEL).queue
        if queue is not None:
            by_priority = queue.view().by_priority
            for priority in Priority:
                assert by_priority[priority] == sum(self.requests[k].priority is priority for k in self.waiting)
            assert queue.garbage <= len(queue) + 64

    @invariant()
    def reservations_sum_right(self) -> None:
        for instance in self.scheduler.instances():
            mine = {a: d for a, d in self.running.items() if d.instance_id == instance.instance_id}
            check_sums(instance.account, mine)


def check_sums(account: Account, mine: dict[int, Decision]) -> None:
    """The account's running figures against a count from scratch."""
    reservations = account.reservations
    assert set(reservations) == set(mine)
    assert account.live == len(mine)
    assert account.free_slots == account.max_running - len(mine)
    assert account.live_not_critical == sum(not r.critical for r in reservations.values())
    assert account.kv.reserved_tokens == sum(r.tokens for r in reservations.values())
    unseen = [r for r in reservations.values() if not r.seen]
    assert set(account.kv.unseen) == {r.attempt_number for r in unseen}
    assert account.kv.unseen_tokens == sum(r.tokens for r in unseen)
    assert all(r.tokens % account.block == 0 for r in reservations.values())
    used = max(
        account.kv.reserved_tokens,
        max(0, account.kv.reported_tokens - account.kv.freed_since_report) + account.kv.unseen_tokens,
    )
    assert account.free_tokens == (account.capacity - used) // account.block * account.block
    assert account.finishes == sorted(r.finish_at for r in reservations.values())
    assert len(account.queue.waiting) == max(0, -account.free_slots)
    assert account.queue.prompt_tokens == sum(r.prompt_tokens for r in account.queue.waiting.values())
    pending = [r for r in reservations.values() if r.first_token_at is None]
    assert set(account.pending.prompts) == {r.attempt_number for r in pending}
    assert abs(account.pending.seconds - sum(r.prefill_s for r in pending)) < 1e-9


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
