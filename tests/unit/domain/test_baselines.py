"""Each policy for comparison places or orders as the system that it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.policies.baselines.table import BASELINES
from scheduler_svc.domain.policies.builtin import BUILTIN
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.prediction.pace import GPU_PRIOR, Pace
from scheduler_svc.domain.request import Request
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler


def make(name: str) -> Policy:
    return BASELINES[name](SchedulerSettings())


def accounts(*prompts: Sequence[int], kv: int = 65_536) -> list[Account]:
    """Accounts of instances ``i0``, ``i1`` ... that got prompts of these lengths, none prefilled yet."""
    scheduler = make_scheduler("fifo")
    for n, lengths in enumerate(prompts):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=64, kv_capacity_tokens=kv))
        for r, tokens in enumerate(lengths):
            scheduler.enqueue(make_request(f"{n}-{r}", prompt=tokens, preferred_instance=f"i{n}"), 0.0)
        scheduler.schedule(0.0)
    return [i.account for i in scheduler.instances()]


def demand(request: Request, **cached: int) -> Demand:
    prompt, output = request.prompt_tokens, request.sampling.max_tokens
    return Demand(
        request=request,
        prompt_tokens=prompt,
        output_tokens=output,
        tokens=prompt + output,
        total_tokens=prompt + output,
        started=False,
        must_leave_reserve=False,
        cached_tokens=cached,
    )


def chosen(name: str, wanted: Demand, among: Sequence[Account]) -> str:
    return among[make(name).objective.choose(wanted, among, 0.0).index].instance_id


def placed(name: str, requests: Sequence[Request], *, instances: int = 4) -> list[str]:
    """Where a scheduler under the policy places the requests, one after the other; none ends."""
    scheduler = make_scheduler(name)
    for n in range(instances):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=64))
    where = []
    for request in requests:
        scheduler.enqueue(request, 0.0)
        (decision,) = scheduler.schedule(0.0)
        where.append(decision.instance_id)
    return where


def order(name: str, *requests: Request) -> list[str]:
    """Ids of the requests in the order in which the policy serves them."""
    ordering = make(name).ordering
    keys = [
        ordering.key(
            WaitingRequest(
                request,
                enqueued_at=request.arrived_at,
                emitted_tokens=0,
                excluded=frozenset(),
                resumed=False,
                output_tokens=request.sampling.max_tokens,
                pace=GPU_PRIOR,
            ),
            request.arrived_at,
        )
        for request in requests
    ]
    return [requests[i].key.request_id for i in sorted(range(len(keys)), key=keys.__getitem__)]


# --- where ------------------------------------------------------------------------------------------


def test_round_robin_takes_turns_whatever_the_load() -> None:
    requests = [make_request(n, prompt=4_000 if n % 4 == 0 else 10) for n in range(8)]

    assert placed("round_robin", requests) == ["i0", "i1", "i2", "i3"] * 2


def test_random_reaches_all_and_always_alike() -> None:
    requests = [make_request(n) for n in range(60)]

    where = placed("random", requests)

    assert set(where) == {"i0", "i1", "i2", "i3"}
    assert where != placed("round_robin", requests)
    assert where == placed("random", requests)


def test_power_of_two_never_takes_the_fuller_of_its_two() -> None:
    objective = make("power_of_two").objective
    fleet = accounts([], [], [32] * 3, [32] * 9)

    picks = [objective.choose(demand(make_request(n)), fleet, 0.0) for n in range(200)]

    assert {len(c.rejected) for c in picks} == {2}
    assert 3 not in {c.index for c in picks}  # whichever the other one is, it has fewer
    assert Counter(c.index for c in picks)[2] < 70  # only drawn with the fullest: a sixth of the pairs


def test_power_of_two_works_with_one_instance() -> None:
    assert chosen("power_of_two", demand(make_request(1)), accounts([32])) == "i0"


def test_least_requests_counts_requests_not_tokens() -> None:
    assert chosen("least_requests", demand(make_request(1)), accounts([32, 32], [4_000])) == "i1"


def test_least_kv_counts_tokens_not_requests() -> None:
    assert chosen("least_kv", demand(make_request(1)), accounts([32, 32], [4_000])) == "i0"


def test_session_affinity_keeps_a_session_together_and_spreads_sessions() -> None:
    requests = [make_request(f"{turn}-{s}", session=f"s{s}") for turn in range(3) for s in range(12)]

    where = placed("session_affinity", requests)

    assert where[:12] == where[12:24] == where[24:]
    assert len(set(where)) == 4


def test_session_affinity_without_a_session_goes_to_the_fewest_requests() -> None:
    assert chosen("session_affinity", demand(make_request(1)), accounts([32], [], [32])) == "i1"


def test_a_session_of_another_tenant_is_another_session() -> None:
    fleet = accounts(*[[]] * 32)
    request = make_request(1, session="s")
    other = replace(request, key=request.key._replace(tenant="u"))

    assert chosen("session_affinity", demand(request), fleet) != chosen("session_affinity", demand(other), fleet)


def prompt(n: int, *blocks: int) -> Request:
    return make_request(n, prompt=64 * len(blocks), prefix_hashes=blocks, prefix_block_tokens=64)


def test_prefix_hash_looks_at_the_first_blocks_only() -> None:
    fleet = accounts(*[[]] * 32)

    alike = chosen("prefix_hash", demand(prompt(1, 11, 12, 13)), fleet)

    assert chosen("prefix_hash", demand(prompt(2, 11, 12, 99)), fleet) == alike
    assert chosen("prefix_hash", demand(prompt(3, 21, 22, 23)), fleet) != alike


def test_prefix_hash_passes_over_an_instance_with_more_than_its_share() -> None:
    where = placed("prefix_hash", [prompt(n, 11, 12) for n in range(40)])

    assert max(Counter(where).values()) <= 13  # 1.25 times the mean, rounded up
    assert Counter(where)[where[0]] == max(Counter(where).values())


def test_prefix_hash_without_a_whole_block_goes_to_the_fewest_requests() -> None:
    assert chosen("prefix_hash", demand(make_request(1)), accounts([32], [], [32])) == "i1"


def test_a_key_moves_only_if_its_home_goes() -> None:
    fleet = accounts(*[[]] * 8)
    homes = {n: chosen("prefix_hash", demand(prompt(n, n * 7_919)), fleet) for n in range(64)}

    for n, home in homes.items():
        left = [a for a in fleet if a.instance_id != "i3"]
        now = chosen("prefix_hash", demand(prompt(n, n * 7_919)), left)
        assert (now == home) is (home != "i3")


def test_llmd_weighs_a_whole_prefix_more_than_a_queue_of_its_own() -> None:
    fleet = accounts([32] * 5, [])
    wanted = make_request(1, prompt=1_000)

    assert chosen("llmd", demand(wanted), fleet) == "i1"
    assert chosen("llmd", demand(wanted, i0=1_000), fleet) == "i0"
    assert chosen("llmd", demand(wanted, i0=500), fleet) == "i1"


def test_dynamo_cost_adds_what_is_to_prefill_and_what_is_kept() -> None:
    fleet = accounts([2_000], [200])
    wanted = make_request(1, prompt=6_000)
    scores = make("dynamo_cost").objective.choose(demand(wanted, i0=4_800), fleet, 0.0).scores["blocks"]

    # (waiting + uncached + reserved there, in whole blocks of 16 + the prompt) / 16
    assert scores == [(2_000 + 1_200 + 2_032 + 6_000) / 16, (200 + 6_000 + 240 + 6_000) / 16]
    assert chosen("dynamo_cost", demand(wanted), fleet) == "i1"


def test_lmetric_multiplies_tokens_to_compute_and_requests() -> None:
    fleet = accounts([100, 100], [600])
    wanted = make_request(1, prompt=1_000)
    scores = make("lmetric").objective.choose(demand(wanted, i0=900), fleet, 0.0).scores["tokens_times_requests"]

    assert scores == [(200 + 100) * 3, (600 + 1_000) * 2]


def test_least_predicted_work_gives_an_engine_twice_as_fast_twice_as_many() -> None:
    slow = GPU_PRIOR
    fast = Pace(
        base_s=slow.base_s / 2,
        prefill_token_s=slow.prefill_token_s / 2,
        running_s=slow.running_s / 2,
        kv_token_s=slow.kv_token_s / 2,
    )
    fleet = accounts([32] * 2, [32] * 3)
    fleet[0].learn(slow)
    fleet[1].learn(fast)
    assert chosen("least_predicted_work", demand(make_request(1)), fleet) == "i1"
    fleet = accounts([32] * 2, [32] * 6)
    fleet[0].learn(slow)
    fleet[1].learn(fast)
    assert chosen("least_predicted_work", demand(make_request(1)), fleet) == "i0"


# --- who next ---------------------------------------------------------------------------------------


def test_shortest_prompt_first() -> None:
    long, short = make_request("long", prompt=900, output=1), make_request("short", prompt=800, output=900)

    assert order("shortest_prompt", long, replace(short, arrived_at=10.0)) == ["short", "long"]


def test_shortest_job_first_counts_the_output() -> None:
    long, short = make_request("long", prompt=100, output=900), make_request("short", prompt=900, output=100)

    assert order("shortest_job", long, replace(short, arrived_at=10.0)) == ["short", "long"]


@pytest.mark.parametrize("name", ["shortest_prompt", "shortest_job"])
def test_waiting_makes_up_for_size_in_the_end(name: str) -> None:
    long, short = make_request("long", prompt=100_000, output=4_000), make_request("short", prompt=1, output=1)

    assert order(name, long, replace(short, arrived_at=600.0)) == ["long", "short"]


def test_earliest_deadline_first_by_first_token_and_by_end() -> None:
    requests = (
        make_request("none", deadline_at=3_600.0, deadline_stated=False),  # NORMAL: first token within 5 s
        make_request("first token", ttft_target_s=2.0),
        make_request("end", deadline_at=1.0),
        make_request("tpot only", tpot_target_s=0.1),  # no deadline at all
    )

    assert order("earliest_deadline", *requests) == ["end", "first token", "none", "tpot only"]


# --- what they say ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_each_goes_by_its_name_says_that_it_is_for_comparison_and_what_it_ignores(name: str) -> None:
    policy = make(name)

    assert policy.name == name
    assert policy.summary.startswith("for comparison: ")
    assert policy.warning.startswith(f"{name} is for comparison, not for service: it ignores ")


def test_the_policies_for_service_have_no_warning() -> None:
    settings = SchedulerSettings()

    assert set(PolicyCatalogue().warnings(settings)) == set(BASELINES)
    assert all(not factory(settings).warning for factory in BUILTIN.values())


def test_a_scheduler_tells_the_warnings() -> None:
    scheduler = Scheduler(SchedulerSettings(policy="fifo"), PolicyCatalogue())
    assert scheduler.policy_warning == ""

    scheduler.set_policy("random", 0.0, "to compare")

    assert scheduler.policy_warning == scheduler.policy_warnings()["random"]
    assert set(scheduler.policy_warnings()) == set(BASELINES)
