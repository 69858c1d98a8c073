"""Cells: figures of a run, loads by seed, fleets, variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from sage_simulator.oracle import ORACLE
from sage_simulator.outcome import End, Outcome
from sage_simulator.simulation import SimulationResult
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.transformations import requests_per_s
from scheduler_svc.domain.placement.split_planner import SplitCounts
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets
from tests.bench.policies.figures import Figures
from tests.bench.policies.fleets import find_fleet, settings_of
from tests.bench.policies.traffic import SYNTHETIC, Recording, Traffic, find_traffic
from tests.bench.policies.variants import UnknownVariant
from tests.unit.bench.policies.made_up import U8, readings

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


def test_a_load_that_shifts_is_of_the_second_kind_after_a_minute() -> None:
    trace = SYNTHETIC["chat_then_code"].trace(rate=20.0, duration_s=120.0, seed=1, targets="default")
    before = [each for each in trace if each.arrival_s < 60.0]
    after = trace[len(before) :]

    assert len(trace) == 2_400
    assert len(before) == pytest.approx(1_800, rel=0.1)
    assert median(each.output_tokens for each in before) > 100 > 50 > median(each.output_tokens for each in after)
    assert all(each.ttft_target_s is None for each in trace)
