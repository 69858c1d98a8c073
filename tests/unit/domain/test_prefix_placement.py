"""Where requests go whose prompts begin alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.prefixes.settings import PrefixSettings
from scheduler_svc.domain.request import Request
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_request, make_scheduler

BLOCK = 64
POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized")


def about(topic: int, request_id: object, *, blocks: int = 32, **changes: Any) -> Request:
    """Make a request whose prompt shares all its whole blocks with others about the same topic."""
    return make_request(
        request_id,
        prompt=blocks * BLOCK + 10,
        prefix_hashes=tuple(topic * 10_000 + n for n in range(blocks)),
        prefix_block_tokens=BLOCK,
        **changes,
    )


def place(scheduler: Scheduler, request: Request, now: float = 0.0) -> Decision:
    scheduler.enqueue(request, now)
    (decision,) = scheduler.schedule(now)
    return decision


def finish(scheduler: Scheduler, decision: Decision, now: float) -> None:
    scheduler.first_token(decision.attempt_number, now)
    scheduler.release(decision.attempt_number, now, output_tokens=8, finished=True)


def serve(scheduler: Scheduler, request: Request, now: float) -> Decision:
    """Place a request and have it finish half a second later."""
    decision = place(scheduler, request, now)
    finish(scheduler, decision, now + 0.5)
    return decision


@pytest.mark.parametrize("policy", POLICIES)
def test_a_prompt_goes_where_its_beginning_is(policy: str) -> None:
    scheduler = make_scheduler(policy, instances=4)
    homes = {topic: serve(scheduler, about(topic, f"first-{topic}"), topic).instance_id for topic in range(4)}

    for now, topic in enumerate((2, 0, 3, 1), start=5):
        decision = serve(scheduler, about(topic, f"second-{topic}", arrived_at=now), now)

        assert decision.instance_id == homes[topic]
        assert decision.cached_tokens == 32 * BLOCK


def test_predictions_count_the_tokens_that_are_left_to_compute() -> None:
    scheduler = make_scheduler(instances=1)
    cold = serve(scheduler, about(1, "cold"), 0.0)
    account = scheduler.instance("i0").account

    warm = place(scheduler, about(1, "warm"), 10.0)

    saved_s = cold.prediction.first_token_s - warm.prediction.first_token_s
    assert saved_s == pytest.approx(32 * BLOCK * account.computed_token_s, rel=0.01)
    assert account.pending.seconds == pytest.approx(10 * account.computed_token_s, rel=0.01), (
        "so does what its reservation stands for"
    )
    assert warm.prediction.cost <= cold.prediction.cost


def test_a_learned_share_of_cached_tokens_is_not_counted_twice() -> None:
    scheduler = make_scheduler(instances=1)
    instance = scheduler.instance("i0")
    instance.account.learn(instance.account.pace, uncached_share=0.1)

    known = place(scheduler, about(1, "known"))
    finish(scheduler, known, 1.0)
    unknown = place(scheduler, make_request("unknown", prompt=32 * BLOCK + 10), 2.0)

    computed_s = (32 * BLOCK + 10) * instance.account.computed_token_s
    known_s, unknown_s = (d.prediction.first_token_s - d.prediction.start_s for d in (known, unknown))
    assert known_s - unknown_s == pytest.approx(0.9 * computed_s, rel=0.01)


def test_what_is_being_prefilled_counts() -> None:
    scheduler = make_scheduler(instances=4)
    first = place(scheduler, about(1, "first"))

    second = place(scheduler, about(1, "second"), 0.2)

    assert second.instance_id == first.instance_id
    assert second.prediction.start_s > 0, "it waits for that prefill"


def test_a_prompt_whose_attempt_ended_before_its_first_token_does_not_count() -> None:
    scheduler = make_scheduler(instances=2)
    failed = place(scheduler, about(1, "failed"))
    scheduler.release(failed.attempt_number, 1.0, output_tokens=None, finished=False)
    lost = place(scheduler, about(2, "lost"), 1.0)
    scheduler.lose(lost.instance_id, "its work was abandoned", 1.0)

    assert place(scheduler, about(1, "again"), 2.0).cached_tokens == 0
    assert place(scheduler, about(2, "again-2"), 2.0).cached_tokens == 0


def test_a_prompt_all_of_which_is_cached_still_has_a_token_to_compute() -> None:
    scheduler = make_scheduler(instances=1)
    whole = replace(about(1, "a"), prompt_token_ids=range(32 * BLOCK))
    serve(scheduler, whole, 0.0)

    again = place(scheduler, replace(whole, key=about(1, "b").key), 1.0)

    assert again.cached_tokens == 32 * BLOCK - 1


@pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware"])  # cost_optimized gathers load on purpose
def test_a_hot_prefix_spreads(policy: str) -> None:
    scheduler = make_scheduler(policy, instances=4)
    placed: Counter[str] = Counter()
    running: list[Decision] = []
    for n in range(400):
        now = n * 0.05
        decision = place(scheduler, about(1, n, blocks=16), now)
        placed[decision.instance_id] += 1
        running.append(decision)
        if len(running) == 10:
            finish(scheduler, running.pop(0), now)

    assert len(placed) == 4
    assert max(placed.values()) <= 1.5 * 100


def test_an_instance_that_was_given_too_much_gets_no_credit() -> None:
    scheduler = make_scheduler(instances=4, prefix=PrefixSettings(max_load_ratio=1.0))
    home = serve(scheduler, about(1, "first", output=1_000), 0.0).instance_id
    for n in range(20):
        serve(scheduler, about(1, n, output=1_000), 0.6 + n * 0.6)

    placed = {serve(scheduler, about(1, f"late-{n}"), 13.0 + n).instance_id for n in range(4)}

    assert placed - {home}


def test_an_objective_that_gathers_load_sees_what_every_cache_holds() -> None:
    scheduler = make_scheduler("cost_optimized", instances=4, prefix=PrefixSettings(max_load_ratio=1.0))
    home = serve(scheduler, about(1, "first"), 0.0).instance_id
    for n in range(20):
        serve(scheduler, about(1, n), 0.6 + n * 0.6)

    assert {serve(scheduler, about(1, f"late-{n}"), 13.0 + n).instance_id for n in range(4)} == {home}


def test_a_new_engine_holds_nothing() -> None:
    scheduler = make_scheduler(instances=1)
    serve(scheduler, about(1, "first"), 0.0)
    scheduler.engine_ready("i0", make_facts(), 1.0)
    assert place(scheduler, about(1, "the same engine"), 1.0).cached_tokens == 32 * BLOCK

    scheduler.register(InstanceSpec(instance_id="i0", model=MODEL, engine_start_id="2"), 2.0)
    scheduler.engine_ready("i0", make_facts(), 2.0)

    assert place(scheduler, about(1, "a new engine"), 2.0).cached_tokens == 0


def test_an_engine_without_prefix_caching_is_never_credited() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(prefix_caching=False))
    serve(scheduler, about(1, "first"), 0.0)

    assert place(scheduler, about(1, "second"), 1.0).cached_tokens == 0


def test_what_an_engine_reports_corrects_what_was_placed() -> None:
    scheduler = make_scheduler(instances=2)
    request = about(1, "first")
    home = serve(scheduler, request, 0.0).instance_id
    other = "i1" if home == "i0" else "i0"

    scheduler.report_cache(home, CacheReport(block_tokens=BLOCK, removed=request.prefix_hashes[8:]))
    assert serve(scheduler, about(1, "second"), 1.0).cached_tokens == 8 * BLOCK

    scheduler.report_cache(home, CacheReport(block_tokens=BLOCK, cleared=True))
    scheduler.report_cache(other, CacheReport(block_tokens=BLOCK, stored=request.prefix_hashes))
    third = serve(scheduler, about(1, "third"), 2.0)
    assert (third.instance_id, third.cached_tokens) == (other, 32 * BLOCK)


def test_what_is_being_prefilled_counts_although_the_engine_says_that_its_cache_is_empty() -> None:
    scheduler = make_scheduler(instances=1)
    place(scheduler, about(1, "first"))

    scheduler.report_cache("i0", CacheReport(block_tokens=BLOCK, cleared=True))

    assert place(scheduler, about(1, "second"), 0.2).cached_tokens == 32 * BLOCK


def test_switched_off_nothing_is_credited() -> None:
    scheduler = make_scheduler(instances=2, prefix=PrefixSettings(aware=False))
    first = serve(scheduler, about(1, "first", session="s"), 0.0)

    second = serve(scheduler, about(1, "second", session="s"), 10.0)

    assert second.cached_tokens == 0
    assert second.instance_id != first.instance_id, "equal instances take turns"


def test_an_explanation_tells_the_cached_tokens_of_each_candidate() -> None:
    scheduler = make_scheduler(instances=2)
    first = serve(scheduler, about(1, "first"), 0.0)

    decision = place(scheduler, about(1, "second"), 1.0)

    assert f"{first.instance_id} is believed to hold 2048 of 2058 prompt tokens in its cache" in decision.reasons
    assert {c.instance_id: c.cached_tokens for c in decision.candidates} == {
        c.instance_id: 2048 if c.instance_id == first.instance_id else 0 for c in decision.candidates
    }


def test_the_preferred_instance_goes_before_the_one_that_holds_the_prompt() -> None:
    scheduler = make_scheduler(instances=2)
    first = serve(scheduler, about(1, "first"), 0.0)
    other = "i1" if first.instance_id == "i0" else "i0"

    assert place(scheduler, about(1, "second", preferred_instance=other), 1.0).instance_id == other


# --- sessions ---------------------------------------------------------------------------------------


def test_a_session_stays_where_it_was_although_nothing_of_it_is_cached() -> None:
    scheduler = make_scheduler(instances=4)
    homes = {name: serve(scheduler, make_request(name, session=name), n).instance_id for n, name in enumerate("abcd")}

    for n, name in enumerate("dbca"):
        decision = serve(scheduler, make_request(f"again-{name}", session=name), 10.0 + n)

        assert decision.instance_id == homes[name]
        assert decision.rule == "session"


def test_a_session_leaves_an_instance_that_is_full_or_has_a_new_engine() -> None:
    scheduler = make_scheduler(instances=2)
    home = serve(scheduler, make_request("first", session="s"), 0.0).instance_id
    other = "i1" if home == "i0" else "i0"
    for n in range(4):
        place(scheduler, make_request(f"fills-{n}", preferred_instance=home, output=2), 1.0)
    assert place(scheduler, make_request("second", session="s"), 1.0).instance_id == other

    scheduler.register(InstanceSpec(instance_id=other, model=MODEL, engine_start_id="2"), 2.0)
    scheduler.engine_ready(other, make_facts(), 2.0)
    assert place(scheduler, make_request("third", session="s"), 2.0).rule != "session"


def test_sessions_of_different_tenants_are_different() -> None:
    scheduler = make_scheduler(instances=2)
    serve(scheduler, make_request("first", session="s"), 0.0)
    mine = make_request("second", session="s")

    assert place(scheduler, replace(mine, key=mine.key._replace(tenant="other")), 1.0).rule != "session"


def test_only_the_latest_sessions_are_remembered() -> None:
    scheduler = make_scheduler(instances=2, prefix=PrefixSettings(max_sessions=2))
    for n in range(3):
        serve(scheduler, make_request(n, session=f"s{n}"), n)

    assert place(scheduler, make_request("old", session="s0"), 5.0).rule != "session"
    assert place(scheduler, make_request("new", session="s2"), 5.0).rule == "session"


# --- prefill and decode apart -----------------------------------------------------------------------


def pd_scheduler() -> Scheduler:
    scheduler = make_scheduler(pd=PdSettings(mode=SplitMode.ALWAYS))
    facts = make_facts(kv_connector="modelled", compatibility_key="k")
    for name in ("p0", "p1"):
        add_instance(scheduler, name, facts=facts, role=InstanceRole.PREFILLING)
    for name in ("d0", "d1"):
        add_instance(scheduler, name, facts=facts, role=InstanceRole.DECODING)
    for pair in scheduler.pairs():
        scheduler.handed_over(pair, 0.01)
    return scheduler


def run_split(scheduler: Scheduler, decision: Decision, now: float) -> None:
    assert decision.prefill is not None
    scheduler.park(decision.prefill.attempt_number, now)
    scheduler.release(decision.prefill.attempt_number, now, output_tokens=None, finished=False)
    finish(scheduler, decision, now)


def test_both_sides_of_a_split_request_are_chosen_by_what_they_hold() -> None:
    scheduler = pd_scheduler()
    homes = {}
    for topic in range(2):
        decision = place(scheduler, about(topic, f"first-{topic}"), topic)
        run_split(scheduler, decision, topic + 0.5)
        assert decision.prefill is not None
        homes[topic] = decision.prefill.instance_id, decision.instance_id
    assert homes[0] != homes[1]

    for n, topic in enumerate((1, 0, 0, 1)):
        decision = place(scheduler, about(topic, f"again-{n}"), 10.0 + n)
        run_split(scheduler, decision, 10.5 + n)

        assert decision.prefill is not None
        assert (decision.prefill.instance_id, decision.instance_id) == homes[topic]
        assert decision.cached_tokens == decision.prefill.cached_tokens == 32 * BLOCK


def test_a_decode_instance_holds_a_prompt_once_it_was_handed_over() -> None:
    scheduler = pd_scheduler()
    place(scheduler, about(1, "first"))

    second = place(scheduler, about(1, "second"), 0.2)

    assert second.prefill is not None
    assert second.prefill.cached_tokens == 32 * BLOCK
    assert second.cached_tokens == 0


# --- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"), [("max_index_bytes", 0), ("max_load_ratio", 0.9), ("max_load_ratio", float("nan"))]
)
def test_a_setting_out_of_its_bounds_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        PrefixSettings(**{key: value})


def test_prefix_awareness_is_on_by_default() -> None:
    assert SchedulerSettings().prefix.aware


def test_a_session_keeps_no_instance_in_use_that_the_load_does_not_need() -> None:
    scheduler = make_scheduler("cost_optimized")
    add_instance(scheduler, "dear", price_per_hour=9.0)
    assert serve(scheduler, make_request("first", session="s"), 0.0).instance_id == "dear"
    add_instance(scheduler, "cheap", price_per_hour=1.0)

    later = [serve(scheduler, make_request(n, session="s", arrived_at=40.0 * n), 40.0 * n) for n in range(1, 5)]

    assert {d.instance_id for d in later[2:]} == {"cheap"}


def test_a_session_stays_among_the_instances_in_use() -> None:
    scheduler = make_scheduler("cost_optimized", instances=2)
    homes = {
        serve(scheduler, make_request(n, prompt=4_000, session="s", arrived_at=n), n).instance_id for n in range(9)
    }

    assert len(homes) == 1


def test_slo_aware_computes_nothing_anew_to_save_one_requests_own_target() -> None:
    """The instance with the prefix runs others, the empty one would use less of the targets: it goes to the first."""
    scheduler = make_scheduler("slo_aware", instances=2)
    home = serve(scheduler, about(1, "first", ttft_target_s=60.0, tpot_target_s=0.5), 0.0).instance_id
    for n in range(3):
        place(scheduler, make_request(f"other-{n}", prompt=16, preferred_instance=home, arrived_at=1.0), 1.0)

    decision = place(scheduler, about(1, "second", ttft_target_s=60.0, tpot_target_s=0.02, arrived_at=2.0), 2.0)

    shares = {row.instance_id: row.scores["target_share"] for row in decision.candidates}
    assert shares[home] > min(shares.values())
    assert decision.instance_id == home
