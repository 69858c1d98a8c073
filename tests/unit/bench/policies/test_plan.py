"""What is run first, and how a run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sage_simulator.oracle import ORACLE
from tests.bench.policies.cell import Cell
from tests.bench.policies.plan import Plan
from tests.bench.policies.results import Results
from tests.bench.policies.tables import (
    left_out_table,
)
from tests.unit.bench.policies.made_up import U8, figures, readings

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


def test_a_search_waits_for_the_cells_at_fixed_loads() -> None:
    plan = Plan(readings(policies=("slo_aware",)))
    job = plan.next_job()

    assert job is not None
    assert job.cell.load == 0.6
    assert plan.next_job() is None
    plan.done(job.cell, figures())
    again = plan.next_job()
    assert again is not None
    assert again.cell.load == 1.0


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


def test_given_loads_are_run_for_every_policy_and_no_goodput_is_searched() -> None:
    plan = Plan(replace(readings(policies=("slo_aware", "least_requests")), at=(0.7, 0.4)))

    ran = run_through(plan)

    assert [(cell.policy, cell.load) for cell in ran] == [
        ("slo_aware", 0.4),
        ("slo_aware", 0.7),
        ("least_requests", 0.4),
        ("least_requests", 0.7),
    ]
    assert plan.left() == []
