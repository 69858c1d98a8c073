"""The benchmark of policies: loads by seed, goodput, resuming, verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sage_simulator.oracle import ORACLE
from sage_simulator.outcome import End, Outcome
from sage_simulator.simulation import SimulationResult
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.transformations import requests_per_s
from scheduler_svc.domain.placement.split_planner import SplitCounts
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets
from tests.bench.policies.__main__ import main
from tests.bench.policies.cell import Cell, Group
from tests.bench.policies.claims import Verdict, judge, largest_step_s
from tests.bench.policies.figures import Figures
from tests.bench.policies.fixed_loads import fixed_loads
from tests.bench.policies.fleets import find_fleet, settings_of
from tests.bench.policies.goodput import goodput, next_load
from tests.bench.policies.plan import Plan
from tests.bench.policies.readings import Readings
from tests.bench.policies.results import Results
from tests.bench.policies.tables import goodput_tables, left_out_table, summary_table, verdict_table
from tests.bench.policies.traffic import SYNTHETIC, Recording, Traffic, find_traffic
from tests.bench.policies.variants import UnknownVariant

E8 = Group(traffic="bursty_chat", fleet="E8", slots=128, targets="mixed")
U8 = Group(traffic="azure_conv", fleet="U8", slots=128, targets="mixed")
LOADS = (0.5, 1.0, 1.5)
MADE_UP = (ORACLE, "fifo", "priority", "slo_aware", "cost_optimized", "adaptive", "least_requests")


def figures(share: float = 1.0, **changes: Any) -> Figures:
    values: dict[str, Any] = {
        "requests": 100,
        "in_target_share": share,
        "class_in_target_spread": 0.0,
        "ttft_mean_s": 0.1,
        "ttft_p50_s": 0.1,
        "ttft_p99_s": 0.2,
        "critical_ttft_p99_s": 0.1,
        "background_ttft_p99_s": 0.1,
        "tpot_p50_s": 0.01,
        "tpot_p90_s": 0.01,
        "queue_wait_p99_s": 0.0,
        "cost_per_million_tokens": 1.0,
        "fleet_cost_per_million_tokens": 2.0,
        "placed_imbalance": 1.0,
        "busy_imbalance": 1.0,
        "overtaken": 0,
        "switches_per_minute": 0.0,
        "span_s": 60.0,
    }
    return Figures(**values | changes)


def readings(
    group: Group = U8, *, policies: tuple[str, ...] = MADE_UP, seeds: int = 1, results: Results | None = None
) -> Readings:
    return Readings(
        results=results or Results(),
        groups=[group],
        policies=policies,
        loads=LOADS,
        seeds=range(1, seeds + 1),
        duration_s=60.0,
    )


def filled(group: Group, made: Callable[[str, float, int], Figures], *, seeds: int = 1) -> Readings:
    """Readings of a run whose figures are made up, by policy, load and seed."""
    run = readings(group, seeds=seeds)
    for policy in MADE_UP:
        for load in {*LOADS, *fixed_loads(group, policy)}:
            for seed in run.seeds:
                run.results.add({run.cell(group, policy, load, seed).key: made(policy, load, seed)})
    return run


def verdicts(run: Readings) -> dict[str, Verdict]:
    return {each.claim + (f" {each.note}" if "load" in each.note else ""): each for each in judge(run)}


# --- goodput ----------------------------------------------------------------------------------------


def test_goodput_lies_between_the_last_load_with_enough_and_the_next() -> None:
    assert goodput(LOADS, {0.5: 1.0, 1.0: 0.95, 1.5: 0.85}.get) == pytest.approx(1.25)


def test_goodput_is_the_highest_load_if_all_have_enough() -> None:
    assert goodput(LOADS, lambda load: 0.9) == 1.5


def test_goodput_below_the_grid_is_taken_from_load_0() -> None:
    assert goodput(LOADS, lambda load: 0.7) == pytest.approx(0.5 / 3)


def test_goodput_is_not_known_between_loads_that_are_no_neighbours() -> None:
    assert goodput(LOADS, {0.5: 1.0, 1.5: 0.85}.get) is None


def test_the_least_load_without_enough_decides() -> None:
    assert goodput(LOADS, {0.5: 1.0, 1.0: 0.89, 1.5: 0.95}.get) == pytest.approx(0.5 + 0.5 * 0.1 / 0.11)


def searched(most: float, expected: float | None = None) -> list[float]:
    """Loads of a grid of 16 that a search asks for, where loads up to ``most`` have enough."""
    grid = [float(n) for n in range(16)]
    known: dict[float, float] = {}
    while (load := next_load(grid, known.get, expected)) is not None:
        assert load not in known
        known[load] = 1.0 if load <= most else 0.0
    assert goodput(grid, known.get) == pytest.approx(most + 0.1 if most < 15 else 15)
    return list(known)


@pytest.mark.parametrize("most", range(16))
def test_a_search_for_goodput_runs_few_loads_of_the_grid(most: float) -> None:
    assert len(searched(most)) <= 5


@pytest.mark.parametrize("most", range(15))
def test_a_search_that_begins_at_the_right_place_runs_two_loads(most: float) -> None:
    assert searched(most, most + 0.5) == [most, most + 1]


@pytest.mark.parametrize("expected", [-1.0, 0.0, 6.9, 7.0, 15.0, 99.0])
def test_a_search_that_begins_at_the_wrong_place_finds_the_goodput(expected: float) -> None:
    assert len(searched(11, expected)) <= 6


# --- figures ----------------------------------------------------------------------------------------


def outcome(arrival_s: float, placed_at: float | None) -> Outcome:
    request = TracedRequest(arrival_s=arrival_s, prompt_tokens=10, output_tokens=2, priority=Priority.CRITICAL)
    first_token_at = placed_at + 0.1 if placed_at is not None else None
    return Outcome(
        request=request,
        end=End.FINISHED if placed_at is not None else End.REFUSED,
        ended_at=9.0,
        targets=Targets(),
        placed_at=placed_at,
        first_token_at=first_token_at,
        output_tokens=2,
    )


def test_who_was_placed_after_one_that_came_later_was_overtaken() -> None:
    outcomes = (outcome(0.0, 3.0), outcome(1.0, 2.0), outcome(1.5, 2.0), outcome(1.6, None), outcome(2.0, 3.0))
    result = SimulationResult(
        policy="p",
        seed=1,
        outcomes=outcomes,
        executors=(),
        decisions=4,
        switches=(),
        stalls=0,
        ended_at=9.0,
        failovers=0,
        split_counts=SplitCounts(splits=0, fallback_causes={}),
        timeline=(),
    )

    found = Figures.of(result)

    assert found.overtaken == 1
    assert found.critical_ttft_p99_s == pytest.approx(3.1)
    assert found.background_ttft_p99_s is None


# --- loads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_synthetic_load_has_its_rate_and_is_another_by_seed(name: str) -> None:
    traffic = find_traffic(name, None)
    one, other = (traffic.trace(rate=20.0, duration_s=400.0, seed=seed, targets="equal") for seed in (1, 2))

    assert one == traffic.trace(rate=20.0, duration_s=400.0, seed=1, targets="equal")
    assert one != other
    assert len(one) == len(other) == 8_000
    assert requests_per_s(one) == pytest.approx(20.0, rel=0.2)
    assert {each.tpot_target_s for each in one} == {0.033 * traffic.tpot_scale}


def recorded(folder: Path, requests: int) -> Path:
    path = folder / "load.csv"
    rows = [f"2023-11-16 18:17:{n // 10:02}.{n % 10},{100 + n},5" for n in range(requests)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, ""]))
    return path


def test_a_seed_chooses_the_part_of_a_recorded_load(tmp_path: Path) -> None:
    traffic = Traffic(name="load", source=Recording(path=recorded(tmp_path, 200)), ttft_scale=2.0)

    parts = [traffic.trace(rate=10.0, duration_s=5.0, seed=seed, targets="equal") for seed in (1, 2, 1)]

    assert [len(part) for part in parts] == [50, 50, 50]
    assert parts[0] == parts[2]
    assert parts[0][0].prompt_tokens != parts[1][0].prompt_tokens
    assert [(each.prompt_tokens - parts[0][0].prompt_tokens) % 200 for each in parts[0]] == list(range(50))
    assert parts[0][0].arrival_s == 0.0
    assert parts[0][0].ttft_target_s == 4.0


def test_more_load_replays_the_same_requests_and_more(tmp_path: Path) -> None:
    traffic = Traffic(name="load", source=Recording(path=recorded(tmp_path, 200)))

    less, more = (traffic.trace(rate=rate, duration_s=10.0, seed=1, targets="mixed") for rate in (5.0, 30.0))

    assert requests_per_s(less) == pytest.approx(5.0)
    assert requests_per_s(more) == pytest.approx(30.0)
    lengths = [(each.prompt_tokens, each.priority) for each in more]
    assert lengths[:50] == [(each.prompt_tokens, each.priority) for each in less]
    assert len({length for length, _ in lengths[:200]}) == 200  # all of the recorded ones, then again
    assert lengths[200][0] == lengths[0][0]


def test_a_recorded_load_that_is_too_short_is_repeated(tmp_path: Path) -> None:
    traffic = Traffic(name="load", source=Recording(path=recorded(tmp_path, 20)))

    assert len(traffic.trace(rate=10.0, duration_s=5.0, seed=1, targets="mixed")) == 50


def test_a_load_without_its_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"azure_conv needs azure_llm_2023_conv\.csv: say with --traces"):
        find_traffic("azure_conv", None)
    with pytest.raises(FileNotFoundError, match=r"mooncake needs .*mooncake_synthetic\.jsonl, which is not there"):
        find_traffic("mooncake", tmp_path)


# --- fleets -----------------------------------------------------------------------------------------


def test_a_fleet_has_as_many_slots_as_asked_for() -> None:
    assert {each.max_running for each in find_fleet("U8", 64)} == {64}


def test_requests_are_split_on_the_separated_fleet_only_and_as_the_variant_says() -> None:
    modes = {
        (fleet, policy): settings_of(fleet, policy, 1).scheduler.pd.mode.value
        for fleet in ("E8", "PD")
        for policy in ("slo_aware", "slo_aware/split_always", "slo_aware/split_never")
    }

    assert [mode for (fleet, _), mode in modes.items() if fleet == "PD"] == ["adaptive", "always", "never"]
    assert modes["E8", "slo_aware"] == "never"


def test_a_variant_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UnknownVariant, match=r"no variant 'fast'; there are: split_always, "):
        settings_of("E8", "fifo/fast", 1)


def test_variants_run_where_they_change_something() -> None:
    blind = ("slo_aware/prefix_blind", "fifo/prefix_blind")
    run = readings(policies=("slo_aware", "slo_aware/split_always", *blind, "round_robin", ORACLE))

    assert run.policies_in(replace(U8, fleet="PD")) == ["slo_aware", "slo_aware/split_always"]
    assert run.policies_in(U8) == ["slo_aware", "round_robin", ORACLE]
    assert run.policies_in(replace(U8, traffic="mooncake")) == ["slo_aware", blind[0], "round_robin", ORACLE]
    assert run.policies_in(replace(U8, traffic="sessions")) == ["slo_aware", *blind, "round_robin", ORACLE]


# --- what is left to run ----------------------------------------------------------------------------


def run_through(plan: Plan, share: Callable[[Cell], float] = lambda cell: 0.95) -> list[Cell]:
    """Run what a plan gives out, one cell at a time, with made-up shares in target."""
    ran = []
    while (job := plan.next_job()) is not None:
        ran.append(job.cell)
        plan.done(job.cell, figures(share(job.cell)))
    return ran


def test_cells_at_fixed_loads_come_first_and_the_search_for_goodput_uses_them() -> None:
    plan = Plan(replace(readings(policies=("slo_aware",)), loads=(0.3, 0.6, 0.9, 1.2)))

    assert [cell.load for cell in run_through(plan, lambda cell: 0.95 if cell.load < 1 else 0.5)] == [0.6, 0.9, 1.2]
    assert plan.left() == []


def test_a_goal_gives_out_one_cell_at_a_time() -> None:
    plan = Plan(readings(policies=("least_requests",), seeds=2))
    one, other, none = (plan.next_job() for _ in range(3))

    assert one is not None
    assert other is not None
    assert none is None
    assert (one.cell.seed, other.cell.seed) == (1, 2)
    plan.done(one.cell, figures(0.5))
    again = plan.next_job()
    assert again is not None
    assert again.cell == one.cell.at(0.5)


def test_a_search_begins_at_the_goodput_of_other_seeds_and_fleets() -> None:
    run = replace(readings(policies=("random",), seeds=2), groups=[U8, replace(U8, fleet="E8")])
    run = replace(run, loads=[float(n) for n in range(16)])
    ran = run_through(Plan(run), lambda cell: 1.0 if cell.load <= 6 else 0.0)

    assert [cell.load for cell in ran[:4]] == [7, 3, 5, 6]
    assert {(cell.group.fleet, cell.seed, cell.load) for cell in ran[4:]} == {
        ("E8", 1, 6), ("E8", 1, 7), ("U8", 2, 6), ("U8", 2, 7), ("E8", 2, 6), ("E8", 2, 7),
    }  # fmt: skip


def test_what_claims_compare_comes_first_and_then_other_slots_by_one_seed() -> None:
    run = replace(
        readings(policies=(ORACLE, "slo_aware", "random", "least_requests"), seeds=2),
        groups=[replace(U8, slots=64), replace(U8, targets="equal"), replace(U8, traffic="steady_chat"), U8],
    )
    ran = run_through(Plan(run), lambda cell: 1.0)
    began: dict[tuple[object, ...], int] = {}
    for index, cell in enumerate(ran):
        group = cell.group
        began.setdefault((group.slots, group.targets, group.traffic, cell.policy, cell.seed), index)
    order = [
        (128, "mixed", "azure_conv", "slo_aware", 1),
        (128, "mixed", "azure_conv", "slo_aware", 2),
        (64, "mixed", "azure_conv", "slo_aware", 1),
        (128, "equal", "azure_conv", "slo_aware", 1),
        (64, "mixed", "azure_conv", "least_requests", 2),
        (128, "mixed", "azure_conv", "random", 1),
        (128, "mixed", "steady_chat", "slo_aware", 1),
    ]

    assert [began[each] for each in order] == sorted(began[each] for each in order)


def test_what_was_not_run_is_left() -> None:
    plan = Plan(readings(policies=("fifo", "random")))
    job = plan.next_job()
    assert job is not None
    plan.done(job.cell, figures())

    assert [goal.policy for goal in plan.left()] == ["fifo", "random"]
    assert "| U8    | 128   | mixed   | 2 " in left_out_table(plan.left())


def test_a_search_may_run_fewer_arrivals_and_uses_whole_runs_that_are_there() -> None:
    run = replace(readings(policies=("priority",)), loads=(0.3, 0.6, 0.9, 1.2), search_s=20.0)
    ran = run_through(Plan(run), lambda cell: 0.95 if cell.load < 0.6 else 0.5)

    assert [(cell.load, cell.duration_s) for cell in ran] == [(0.05, 60), (0.6, 60), (0.9, 60), (1.2, 60), (0.3, 20)]
    assert run.seed_goodput(U8, "priority", 1) == pytest.approx(0.3 + 0.3 * 0.05 / 0.45)


# --- results ----------------------------------------------------------------------------------------


def test_results_go_on_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    cell = Cell(group=U8, policy="fifo", load=0.5, seed=1, duration_s=60.0)
    first = Results(path)
    first.add({cell.key: figures(0.75)})
    first.save()

    again = Results(path)

    assert again.find(cell) == figures(0.75)
    assert again.find(cell.at(0.6)) is None
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_results_of_another_source_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    cell = Cell(group=U8, policy="fifo", load=0.5, seed=1, duration_s=60.0)
    first = Results(path)
    first.add({cell.key: figures()})
    first.save()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": "another"}))

    again = Results(path)

    assert again.find(cell) is None
    assert again.discarded == 1
    assert Results(path, any_source=True).find(cell) == figures()


# --- verdicts ---------------------------------------------------------------------------------------


def by_goodput(**goodputs: float) -> Callable[[str, float, int], Figures]:
    """Figures that give policies these goodputs, others 1."""
    return lambda policy, load, seed: figures(1.0 - 0.1 * load / goodputs.get(policy, 1.0))


def test_goodput_claims_compare_on_the_same_seeds() -> None:
    run = filled(U8, by_goodput(slo_aware=1.3, least_requests=0.8, oracle=1.4), seeds=3)
    found = verdicts(run)

    least = found["slo_aware: least outstanding"]
    assert least.value.mean == pytest.approx(1.3 / 0.8)
    assert least.value.half_width == pytest.approx(0.0, abs=1e-9)
    assert least.words == "met"
    assert found["slo_aware: nowhere below fifo"].words == "met"
    share = found["slo_aware: share of the oracle"]
    assert share.value.mean == pytest.approx(1.3 / 1.4)
    assert share.words == "told"
    assert found["adaptive: best fixed policy"].words == "missed by 20.7%"
    assert found["adaptive: best fixed policy"].note == "goodput by slo_aware's"


def test_bursty_traffic_asks_for_more() -> None:
    assert verdicts(filled(E8, by_goodput(slo_aware=1.2)))["slo_aware: best router"].words == "missed by 14.3%"


def test_cost_is_compared_at_the_economical_load_among_those_in_time() -> None:
    costs = {"fifo": 1.0, "priority": 0.9, "slo_aware": 0.5, "cost_optimized": 0.7, "adaptive": 0.72}

    def made(policy: str, load: float, seed: int) -> Figures:
        return figures(0.98 if policy == "slo_aware" else 1.0, cost_per_million_tokens=costs.get(policy, 1.0))

    found = verdicts(filled(U8, made))

    assert found["cost_optimized: cost per token by fifo's, load 0.6"].value.mean == pytest.approx(0.7)
    assert found["cost_optimized: cost per token by fifo's, load 0.6"].words == "met"
    adaptive = found["adaptive: cost per token by cost_optimized's, load 0.6"]
    assert adaptive.value.mean == pytest.approx(0.72 / 0.7)
    assert adaptive.words == "met"


def test_critical_requests_may_wait_for_one_step_more_than_on_an_idle_fleet() -> None:
    step_s = largest_step_s(E8)
    assert step_s == pytest.approx(7e-3 + 2_048 * 4e-5 + 128 * 4e-5 + 320_000 * 1.2e-8)

    def made(policy: str, load: float, seed: int) -> Figures:
        return figures(critical_ttft_p99_s=0.1 + {0.05: 0.0, 0.9: step_s * 0.9, 1.2: step_s * 1.1}.get(load, 0.0))

    found = verdicts(filled(E8, made))

    assert found["priority: CRITICAL p99 TTFT s, load 0.9"].words == "met"
    assert found["priority: CRITICAL p99 TTFT s, load 1.2"].words.startswith("missed by ")


def test_classes_with_equal_targets_are_served_alike_by_slo_aware_and_not_by_priority() -> None:
    group = replace(E8, traffic="steady_chat", targets="equal")

    spread = {
        policy: Cell(group=group, policy=policy, load=1.2, seed=1, duration_s=20.0).run().class_in_target_spread
        for policy in ("slo_aware", "priority")
    }

    assert spread["slo_aware"] < 0.1 < 0.5 < spread["priority"]


def test_a_class_that_is_served_worse_by_slo_aware_misses_the_claim() -> None:
    group = replace(E8, targets="equal")

    def of(spread: float) -> list[Verdict]:
        found = judge(filled(group, lambda *_: figures(class_in_target_spread=spread)))
        return [each for each in found if each.claim == "slo_aware: equal targets"]

    assert [each.words for each in of(0.05)] == ["met", "met"]
    assert all(each.words.startswith("missed") for each in of(0.95))


def test_one_overtaken_request_is_one_too_many_on_an_equal_fleet() -> None:
    found = verdicts(filled(E8, lambda policy, load, seed: figures(overtaken=int(load > 1))))

    assert found["fifo: nothing overtakes share of requests, load 0.9"].words == "met"
    assert found["fifo: nothing overtakes share of requests, load 1.2"].words != "met"


def test_adaptive_splitting_is_compared_with_always_and_never() -> None:
    group = replace(E8, fleet="PD")
    run = readings(group, policies=("slo_aware", "slo_aware/split_always", "slo_aware/split_never"))
    for policy, most in zip(run.policies, (1.0, 1.2, 0.8), strict=True):
        for load in LOADS:
            run.results.add({run.cell(group, policy, load, 1).key: figures(1.0 - 0.1 * load / most)})

    found = [(each.note, each.words) for each in judge(run) if each.claim.startswith("splitting")]

    assert found == [
        ("goodput by slo_aware/split_always's", "missed by 14.1%"),
        ("goodput by slo_aware/split_never's", "met"),
    ]


def test_following_prefixes_is_compared_with_not_following_them() -> None:
    group = replace(E8, traffic="mooncake")
    run = readings(group, policies=("slo_aware", "slo_aware/prefix_blind"))
    for policy, most in (("slo_aware", 1.2), ("slo_aware/prefix_blind", 1.0)):
        for load in (*LOADS, 0.9):
            share = 1.0 - 0.1 * load / most
            run.results.add({run.cell(group, policy, load, 1).key: figures(share, busy_imbalance=1.6)})

    found = verdicts(run)

    assert found["prefixes: goodput"].words == "met"
    assert found["prefixes: goodput"].value.mean == pytest.approx(1.2)
    assert found["prefixes: in target more in target, load 0.9"].value.mean == pytest.approx(0.015)
    assert found["prefixes: balance most busy by the mean, load 0.9"].words == "missed by 6.7%"


def test_a_claim_without_its_cells_is_left_out() -> None:
    assert judge(readings()) == []


def test_the_tables_say_what_was_found() -> None:
    run = filled(U8, by_goodput(slo_aware=1.3, least_requests=0.5, fifo=2.0), seeds=2)
    found = judge(run)

    goodputs, claims, summary = goodput_tables(run), verdict_table(found), summary_table(found)

    assert goodputs.splitlines()[2].split("|")[1:3] == [" fifo                 ", " ≥ 1.5 ± 0               "]
    assert "slo_aware: nowhere below fifo" in claims
    assert "| slo_aware: least outstanding | 1 of 1 | ≥ 1.3 |" in " ".join(summary.split())
    assert "| slo_aware: nowhere below fifo | 0 of 1 |" in " ".join(summary.split())


def test_a_run_prints_its_tables_and_goes_on_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    arguments = "--quick --traffic bursty_chat --fleet U8 --policy fifo --policy oracle --loads 0.5 --duration-s 2"
    command = [*arguments.split(), "--processes", "1", "--results", str(results)]

    assert main([*command, "--minutes", "0"]) == 3
    assert "3 goals are left" in capsys.readouterr().err
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| goodput, of capacity | bursty_chat U8 128 mixed |" in printed
    assert results.with_suffix(".md").read_text() == printed
    assert main([*command, "--report", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "bursty_chat U8 128 mixed|oracle|0.5|1|2" in document["cells"]
