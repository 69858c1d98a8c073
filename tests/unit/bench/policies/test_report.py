"""What is printed, and a whole small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_simulator.estimate import Estimate
from tests.bench.policies.__main__ import main
from tests.bench.policies.claims import Verdict, judge
from tests.bench.policies.figures import Figures
from tests.bench.policies.page import BEGIN, END, put_tables
from tests.bench.policies.tables import (
    economy_table,
    goodput_tables,
    missed_table,
    summary_table,
    verdict_table,
)
from tests.unit.bench.policies.made_up import U8, by_goodput, figures, filled


def test_the_tables_say_what_was_found() -> None:
    run = filled(U8, by_goodput(slo_aware=1.3, least_requests=0.5, fifo=2.0), seeds=2)
    found = judge(run)

    goodputs, claims, summary = goodput_tables(run), verdict_table(found), summary_table(found)

    assert goodputs.splitlines()[2].split("|")[1:3] == [" fifo                 ", " ≥ 1.5 ± 0               "]
    assert "slo_aware: nowhere below fifo" in claims
    assert "| slo_aware: least outstanding | 1 of 1 | 0 | ≥ 1.3 |" in " ".join(summary.split())
    assert "| slo_aware: nowhere below fifo | 0 of 1 |" in " ".join(summary.split())
    assert "| slo_aware: share of the oracle | told | 0 | |" in " ".join(summary.split())
    assert "slo_aware: nowhere below fifo" in missed_table(found)
    assert "slo_aware: least outstanding" not in missed_table(found)


def test_a_cost_is_told_by_that_of_fifo_on_the_same_seeds() -> None:
    def made(policy: str, load: float, seed: int) -> Figures:
        return figures(cost_per_million_tokens=seed * (0.75 if policy == "cost_optimized" else 1.0))

    table = economy_table(filled(U8, made, seeds=3), [U8], 0.6)

    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    assert ["", str(U8), "cost_optimized", "1 ± 0", "0.75 ± 0", "1 ± 0", ""] in rows


def test_a_verdict_says_when_other_seeds_may_decide() -> None:
    def found(mean: float, half_width: float | None) -> Verdict:
        value = Estimate(mean=mean, half_width=half_width, seeds=3 if half_width else 1)
        return Verdict(claim="c", group=U8, value=value, at_least=1.0)

    assert found(1.1, 0.2).words == "met, within the interval"
    assert found(0.9, 0.2).words == "missed by 10.0%, within the interval"
    assert found(0.9, 0.05).words == "missed by 10.0%"
    assert found(0.9, None).words == "missed by 10.0%"
    assert "| 1 of 2 | 1 | ≥ 1 | 0.9 ± 0.2 |" in " ".join(summary_table([found(0.9, 0.2), found(1.3, 0.2)]).split())


def test_tables_are_put_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Measured\n\n{BEGIN}\nold\n{END}\n\nWhy.\n")

    put_tables(page, "| new |")
    put_tables(page, "| newer |")

    assert page.read_text() == f"# Measured\n\n{BEGIN}\n\n| newer |\n\n{END}\n\nWhy.\n"


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{END}\n{BEGIN}\n")

    with pytest.raises(ValueError, match=r"page\.md has no lines <!-- printed tables: begin -->"):
        put_tables(page, "| new |")
    assert page.read_text() == f"{END}\n{BEGIN}\n"


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
