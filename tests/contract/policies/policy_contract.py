"""The suite every policy passes.

For a policy of your own, subclass ``PolicyContract`` in your tests and say how it is made:

    class TestMine(PolicyContract):
        factory = staticmethod(make_mine)      # SchedulerSettings -> Policy
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.ordering.base import Ordering
from scheduler_svc.domain.policies.builtin import BUILTIN
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.prediction.pace import GPU_PRIOR
from scheduler_svc.domain.queue_order import MAX_REVISIONS
from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.scheduler import Scheduler, SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import (
    MEASURED,
    ModelledFleet,
    add_instance,
    make_facts,
    make_load,
    make_request,
    make_scheduler,
    put_in_state,
)

NAME = "policy_under_test"
# One example is as good for one policy as for the next, so it does not matter that subclasses share the tests.
SHARED = [HealthCheck.differing_executors, HealthCheck.too_slow]
QUICK = settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=SHARED)

seconds = st.floats(min_value=0.001, max_value=10_000, allow_nan=False)


@st.composite
def waiting_requests(draw: st.DrawFn) -> WaitingRequest:
    """Draw any request that may wait, resumed or not."""
    arrived = draw(seconds)
    resumed = draw(st.booleans())
    enqueued = arrived + draw(seconds) if resumed else arrived
    request = make_request(
        draw(st.integers()),
        prompt=draw(st.integers(1, 4_000)),
        output=draw(st.integers(1, 4_000)),
        priority=draw(st.sampled_from(Priority)),
        arrived_at=arrived,
        deadline_at=draw(st.none() | seconds.map(lambda s: arrived + s)),
        deadline_stated=draw(st.booleans()),
        ttft_target_s=draw(st.none() | seconds),
        tpot_target_s=draw(st.none() | seconds),
        cost_budget=draw(st.none() | seconds),
    )
    emitted = draw(st.integers(0, 100)) if resumed else 0
    return WaitingRequest(
        request,
        enqueued_at=enqueued,
        emitted_tokens=emitted,
        excluded=frozenset(),
        resumed=resumed,
        output_tokens=draw(st.integers(1, 4_000)),
        pace=GPU_PRIOR,
    )


class PolicyContract:
    """What every policy must hold; ``factory`` makes the policy under test.

    ``free_slots_first``: whether it takes a free slot, where there is one, before a place in an engine's queue; False
    for policies that do not look at load.
    """

    factory: Callable[[SchedulerSettings], Policy]
    waits = False  # whether its objective may have requests wait beside free capacity (``Choice.waits``)
    free_slots_first = True

    def policy(self) -> Policy:
        """Make the policy with default settings."""
        return self.factory(SchedulerSettings())

    def scheduler(self) -> Scheduler:
        """Make a scheduler without instances that follows the policy."""
        policies = PolicyCatalogue({**BUILTIN, NAME: lambda s: replace(self.factory(s), name=NAME)})
        return make_scheduler(NAME, policies=policies)

    def fleet(self, instances: int = 3, *, max_running: int = 4) -> ModelledFleet:
        """Make a fleet of READY instances ``i0``, ``i1`` ... in virtual time; each later one costs more."""
        scheduler = self.scheduler()
        for n in range(instances):
            add_instance(scheduler, f"i{n}", facts=make_facts(max_running=max_running), price_per_hour=1.0 + n)
        return ModelledFleet(scheduler)

    # --- what it says of itself -------------------------------------------------------------------

    def test_its_summary_is_one_line(self) -> None:
        policy = self.policy()

        assert policy.name
        assert policy.summary
        assert "\n" not in policy.summary

    def test_it_reserves_one_slot_for_critical_at_most(self) -> None:
        assert self.policy().objective.reserved_slots in (0, 1)

    # --- ordering ---------------------------------------------------------------------------------

    @QUICK
    @given(waiting=waiting_requests())
    def test_a_key_is_a_time_no_earlier_than_arrival_and_no_later_than_its_bound(self, waiting: WaitingRequest) -> None:
        ordering = self.policy().ordering

        keys = all_keys(ordering, waiting)

        arrived = waiting.request.arrived_at
        assert keys[0] >= arrived
        assert keys[-1] <= max(arrived, waiting.enqueued_at) + ordering.max_delay_s + 1e-6

    @QUICK
    @given(waiting=waiting_requests(), later=seconds)
    def test_a_key_does_not_change_while_the_request_waits(self, waiting: WaitingRequest, later: float) -> None:
        ordering = self.policy().ordering
        now = waiting.enqueued_at

        assert ordering.key(waiting, now) == ordering.key(waiting, now + later)

    @QUICK
    @given(waiting=waiting_requests(), later=seconds)
    def test_a_request_that_is_sent_back_goes_further_back(self, waiting: WaitingRequest, later: float) -> None:
        ordering = self.policy().ordering
        now = waiting.enqueued_at
        waiting.key = ordering.key(waiting, now)

        revised = ordering.revise(waiting, now + later)

        assert revised is None or revised > waiting.key

    @QUICK
    @given(waiting=waiting_requests(), later=seconds)
    def test_says_in_words_what_a_request_is_ordered_by(self, waiting: WaitingRequest, later: float) -> None:
        ordering = self.policy().ordering
        waiting.key = ordering.key(waiting, waiting.enqueued_at)

        assert ordering.describe(waiting, waiting.enqueued_at + later)

    def test_equal_requests_go_in_order_of_arrival(self) -> None:
        fleet = self.fleet(1)
        for n in range(40):
            fleet.arrive(make_request(n, arrived_at=n * 1e-3))

        fleet.run()

        assert [d.key.request_id for d in fleet.decisions] == [str(n) for n in range(40)]

    # --- placement --------------------------------------------------------------------------------

    @QUICK
    @given(waiting=waiting_requests(), loads=st.lists(st.integers(0, 4), min_size=1, max_size=5))
    def test_chooses_one_of_the_candidates_and_scores_them_all(self, waiting: WaitingRequest, loads: list[int]) -> None:
        accounts = loaded_accounts(loads)
        before = [a.live for a in accounts]

        choice = self.policy().objective.choose(make_demand(waiting), accounts, waiting.enqueued_at)

        assert 0 <= choice.index < len(accounts)
        assert choice.index not in choice.rejected
        assert choice.why
        assert choice.scores
        assert all(len(scores) == len(accounts) for scores in choice.scores.values())
        assert [a.live for a in accounts] == before

    def test_decisions_of_one_pass_see_each_other(self) -> None:
        fleet = self.fleet(3, max_running=4)
        for n in range(12):
            fleet.arrive(make_request(n, priority=Priority.CRITICAL))

        fleet.run(until=0)

        assert fleet.by_instance.total() == 12
        assert max(fleet.by_instance.values()) <= (4 if self.free_slots_first else 5)  # one may queue at its engine

    def test_an_instance_of_another_model_is_never_chosen(self) -> None:
        scheduler = self.scheduler()
        add_instance(scheduler, "other", model="other")
        scheduler.enqueue(make_request(1), 0.0)

        assert scheduler.schedule(0.0) == []
        assert scheduler.waiting("tiny") == 1

    @pytest.mark.parametrize("state", [s for s in InstanceState if s is not InstanceState.READY])
    def test_an_instance_that_is_not_ready_is_never_chosen(self, state: InstanceState) -> None:
        scheduler = self.scheduler()
        add_instance(scheduler, "i0")
        put_in_state(scheduler, "i0", state)
        scheduler.enqueue(make_request(1), 0.0)

        assert scheduler.schedule(0.0) == []

    def test_the_preferred_instance_is_taken_where_it_has_room(self) -> None:
        fleet = self.fleet(3)
        for n in range(3):
            fleet.arrive(make_request(n, preferred_instance="i2", priority=Priority.HIGH))

        fleet.run()

        assert fleet.by_instance == {"i2": 3}

    def test_a_preference_that_cannot_be_followed_is_explained(self) -> None:
        fleet = self.fleet(2)
        fleet.arrive(make_request(1, preferred_instance="nowhere"))

        fleet.run()

        assert any("'nowhere' not used" in reason for reason in fleet.decisions[0].reasons)

    def test_every_instance_of_the_model_is_in_the_explanation_once(self) -> None:
        scheduler = self.scheduler()
        for n in range(4):
            add_instance(scheduler, f"i{n}", facts=make_facts(max_running=2))
        scheduler.transition("i3", InstanceState.SUSPECT, "its stream broke", 0.0)
        for n in range(6):
            scheduler.enqueue(make_request(n), 0.0)

        decisions = scheduler.schedule(0.0)

        assert decisions
        for decision in decisions:
            rows = list(decision.candidates)
            assert sorted(c.instance_id for c in rows) == ["i0", "i1", "i2", "i3"]
            assert [c.instance_id for c in rows if c.chosen] == [decision.instance_id]
            assert decision.candidates_considered == 4
            assert all(c.filtered_by or c.scores for c in rows)
            assert next(c for c in rows if c.instance_id == "i3").filtered_by == "state"

    # --- together ---------------------------------------------------------------------------------

    @QUICK
    @given(st.data())
    def test_every_request_is_placed_and_ends_exactly_once(self, data: st.DataObject) -> None:
        fleet = self.fleet(data.draw(st.integers(1, 3)), max_running=data.draw(st.integers(1, 5)))
        requests = data.draw(mixed_load(max_size=40))
        for request in requests:
            fleet.arrive(request)

        fleet.run()

        keys = Counter(r.key for r in requests)
        assert Counter(d.key for d in fleet.decisions) == keys
        assert fleet.ended == keys
        assert fleet.scheduler.live_attempts() == 0

    @QUICK
    @given(st.data())
    def test_nobody_waits_who_could_run(self, data: st.DataObject) -> None:
        """After every pass the head fits nowhere, but for what is reserved for CRITICAL."""
        fleet = self.fleet(data.draw(st.integers(1, 3)), max_running=data.draw(st.integers(1, 5)))
        for request in data.draw(mixed_load(max_size=30)):
            fleet.arrive(request)
        policy = self.policy()
        kept = policy.objective.reserved_slots
        protects = kept > 0 or policy.governor is not None

        def free_slots_are_used() -> None:
            queue = fleet.scheduler.queues().get("tiny")
            if queue is not None and queue.waiting:
                critical_waits = queue.by_priority[Priority.CRITICAL] > 0
                accounts = [instance.account for instance in fleet.scheduler.instances()]
                if self.waits and any(a.reservations for a in accounts):
                    return
                for account in (a for a in accounts if not a.prefill_full):
                    if protects and account.kept_for_critical and not critical_waits:
                        continue
                    spare = kept if account.max_running > 1 and not critical_waits else 0
                    assert account.free_slots <= spare

        fleet.after_pass = free_slots_are_used
        fleet.run()

    @QUICK
    @given(st.data())
    def test_nothing_is_overtaken_by_what_comes_later_than_its_bound(self, data: st.DataObject) -> None:
        """No starvation.  Requests are of one size, so nothing is backfilled; CRITICAL may use the slot kept for it."""
        fleet = self.fleet(data.draw(st.integers(1, 2)), max_running=data.draw(st.integers(1, 4)))
        policy = self.policy()
        bound_s, kept = max_delay_s(policy), policy.objective.reserved_slots or policy.governor is not None
        gap_s = data.draw(st.floats(0.5, 60))
        requests = [
            make_request(
                n,
                priority=data.draw(st.sampled_from(Priority)),
                arrived_at=n * gap_s,
                output=3_000,
                ttft_target_s=data.draw(st.none() | st.floats(0.1, 1_000)),
            )
            for n in range(25)
        ]
        for request in requests:
            fleet.arrive(request)

        fleet.run()

        arrived = {r.key: r.arrived_at for r in requests}
        critical = {r.key for r in requests if r.priority is Priority.CRITICAL}
        order = [d.key for d in fleet.decisions]
        for i, key in enumerate(order):
            waited_on = [k for k in order[i + 1 :] if arrived[k] + bound_s < arrived[key]]
            assert not waited_on or (key in critical and kept)

    def test_a_steady_stream_of_the_favoured_does_not_keep_others_out(self) -> None:
        """Twice what the fleet can do, CRITICAL with a tight target; one BACKGROUND request among them."""
        fleet = self.fleet(1, max_running=2)
        bound_s = max_delay_s(self.policy())
        service_s = 1.0
        n = int((bound_s + 60) * 4)
        for i in range(n):
            request = make_request(i, output=100, priority=Priority.CRITICAL, arrived_at=i / 4, ttft_target_s=0.5)
            fleet.arrive(request)
        background = make_request("background", output=100, priority=Priority.BACKGROUND, arrived_at=1.0)
        fleet.arrive(background)

        fleet.run(until=4 * (bound_s + 60))

        # What arrived up to the bound may go first: twice as long as it took to arrive.
        assert fleet.waits()[background.key] <= 2 * (bound_s + 10) + service_s

    @pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.LOW, Priority.BACKGROUND])
    def test_a_tight_stream_makes_nobody_else_miss_a_deadline(self, priority: Priority) -> None:
        scheduler = self.beside_a_tight_stream()
        due = make_request("due", priority=priority, arrived_at=0.5, deadline_at=2.5, deadline_stated=True)
        scheduler.enqueue(due, 0.5)

        placed_at, decision = first_decision(scheduler, 0.5)

        assert placed_at + decision.prediction.finish_s <= 2.5

    def test_a_tight_stream_keeps_out_nobody_who_began_elsewhere(self) -> None:
        scheduler = self.beside_a_tight_stream()
        moved = make_request("moved", priority=Priority.LOW, output=400, arrived_at=0.4, ttft_target_s=30.0)
        scheduler.enqueue(moved, 0.5, resumed=True, emitted_tokens=5)

        assert first_decision(scheduler, 0.5)[0] == 0.5

    def test_a_tight_stream_keeps_others_out_for_half_of_their_target_at_most(self) -> None:
        scheduler = self.beside_a_tight_stream()
        scheduler.enqueue(make_request("loose", priority=Priority.LOW, arrived_at=0.5, ttft_target_s=4.0), 0.5)

        assert first_decision(scheduler, 0.5)[0] <= 2.6

    def beside_a_tight_stream(self) -> Scheduler:
        """Make a scheduler with one instance of many slots, which runs a stream whose TPOT target it just meets."""
        scheduler = self.scheduler()
        add_instance(scheduler, "i0", facts=make_facts(max_running=64, measured=MEASURED))
        scheduler.enqueue(make_request("stream", output=2_000, ttft_target_s=5.0, tpot_target_s=0.025), 0.0)
        for decision in scheduler.schedule(0.0):
            scheduler.first_token(decision.attempt_number, 0.2)
        return scheduler

    def test_switching_to_it_and_away_loses_nobody(self) -> None:
        scheduler = make_scheduler("fifo", policies=PolicyCatalogue({**BUILTIN, NAME: self.factory}))
        keys = set()
        for n in range(20):
            request = make_request(n, priority=Priority(1 + n % 5), ttft_target_s=0.1 if n % 3 else None)
            keys.add(request.key)
            scheduler.enqueue(request, 0.0)

        assert scheduler.set_policy(NAME, 1.0, "try it")[1] == 20
        assert scheduler.set_policy("fifo", 2.0, "and back")[1] == 20

        add_instance(scheduler, "i0", facts=make_facts(max_running=64))
        assert {d.key for d in scheduler.schedule(3.0)} == keys


def first_decision(scheduler: Scheduler, now: float) -> tuple[float, Decision]:
    """Have passes every tenth of a second, with heartbeats, until something is placed; return when, and the decision.

    A request that is given up, or is not placed within a minute, fails the test.
    """
    for tick in range(600):
        at = round(now + tick / 10, 3)
        assert not scheduler.given_up(at)
        if decisions := scheduler.schedule(at):
            return at, decisions[0]
        scheduler.report("i0", make_load(tick + 1, running=1, unfinished=1, kv_used_tokens=1_000), at)
    raise AssertionError("nothing was placed within a minute")


def max_delay_s(policy: Policy) -> float:
    """How far a request may be overtaken, in seconds of arrival."""
    if policy.governor is None:
        return policy.ordering.max_delay_s
    return max(BUILTIN[name](SchedulerSettings()).ordering.max_delay_s for name in policy.governor.follows)


def all_keys(ordering: Ordering, waiting: WaitingRequest) -> list[float]:
    """The first key and those it is revised to, at ever later times."""
    now = waiting.enqueued_at
    waiting.key = ordering.key(waiting, now)
    keys = [waiting.key]
    for _ in range(MAX_REVISIONS):
        now += 20_000
        revised = ordering.revise(waiting, now)
        if revised is None:
            break
        assert revised > waiting.key
        waiting.key = revised
        waiting.revisions += 1
        keys.append(revised)
    return keys


def loaded_accounts(loads: Sequence[int]) -> list[Account]:
    """Accounts of a fleet that runs so many requests already; each has room for more."""
    scheduler = make_scheduler("fifo")
    for n, load in enumerate(loads):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=8), price_per_hour=float(n % 2))
        for r in range(load):
            scheduler.enqueue(make_request(f"{n}-{r}", preferred_instance=f"i{n}"), 0.0)
        scheduler.schedule(0.0)
    return [i.account for i in scheduler.instances()]


def make_demand(waiting: WaitingRequest) -> Demand:
    request = waiting.request
    return Demand(
        request=request,
        prompt_tokens=waiting.prompt_tokens,
        output_tokens=waiting.output_tokens,
        tokens=waiting.prompt_tokens + waiting.output_tokens,
        total_tokens=request.prompt_tokens + request.sampling.max_tokens,
        started=waiting.emitted_tokens > 0,
        must_leave_reserve=False,
    )


@st.composite
def mixed_load(draw: st.DrawFn, *, max_size: int) -> list[Request]:
    """Requests of all classes and sizes, over some seconds."""
    n = draw(st.integers(1, max_size))
    at = 0.0
    requests = []
    for i in range(n):
        at += draw(st.sampled_from([0.0, 0.0, 0.01, 0.3]))
        requests.append(
            make_request(
                i,
                prompt=draw(st.sampled_from([1, 100, 4_000])),
                output=draw(st.sampled_from([1, 30, 2_000])),
                priority=draw(st.sampled_from(Priority)),
                arrived_at=at,
                deadline_at=draw(st.sampled_from([None, at + 1.0, at + 100.0])),
                ttft_target_s=draw(st.sampled_from([None, 0.05, 5.0])),
                cost_budget=draw(st.sampled_from([None, 1e-6, 1.0])),
            )
        )
    return requests
