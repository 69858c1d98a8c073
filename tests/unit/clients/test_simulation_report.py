"""``--report``: one HTML file with tables and plots."""

from __future__ import annotations

import base64
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from sagectl import cli


class Page(HTMLParser):
    """What a page shows and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.cells: list[str] = []
        self.plots: dict[str, str] = {}  # SVG by title
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = {name: value or "" for name, value in attrs}
        source = values.get("src", "")
        if source.startswith("data:image/svg+xml;base64,"):
            self.plots[values["alt"]] = base64.b64decode(source.partition(",")[2]).decode()
        elif source or "href" in values:
            self.loads.append(source or values["href"])

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(cli.sagectl, ("simulate", *arguments), prog_name="sagectl")


def page_of(path: Path, *arguments: str) -> Page:
    done = simulate(*arguments, "--report", str(path), "--workers", "1")
    assert (done.exit_code, done.stderr) == (0, "")
    return Page(path.read_text())


def assert_loads_nothing(page: Page) -> None:
    assert page.loads == []
    assert page.tags & {"script", "link", "iframe"} == set()
    for svg in page.plots.values():
        root = ElementTree.fromstring(svg)
        links = [value for each in root.iter() for name, value in each.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)
        assert "@import" not in svg


def test_a_run_is_reported_with_its_table_and_its_plots(tmp_path: Path) -> None:
    page = page_of(
        tmp_path / "run.html", "run", "--requests", "60", "--policy", "fifo", "--policy", "priority", "--seeds", "2"
    )
    assert_loads_nothing(page)
    assert {"fifo", "priority", "TTFT p50"} <= set(page.cells)
    assert list(page.plots) == [
        "Time to first token", "Time per output token", "Queue, first seed", "Utilisation, first seed",
        "Cost, first seed",
    ]  # fmt: skip
    for svg in page.plots.values():
        assert {"fifo", "priority"} <= set(re.findall(r">([a-z_]+)<", svg))


def test_the_policies_that_were_followed_are_reported_for_each_seed(tmp_path: Path) -> None:
    load = ("--requests", "40", "--load", "0.2", "--instances", "1xprice=5;1xprice=1", "--seeds", "2")
    cells = page_of(tmp_path / "run.html", "run", *load, "--policy", "fifo", "--policy", "adaptive").cells
    assert "followed" in cells
    assert cells.count("cost_optimized") == 2
    assert "followed" not in page_of(tmp_path / "fifo.html", "run", *load, "--policy", "fifo").cells


def test_a_search_for_the_highest_load_is_reported_with_attainment_against_load(tmp_path: Path) -> None:
    fleet = ("--instances", "1xslots=8", "--duration", "10", "--seeds", "1", "--resolution", "0.2")
    page = page_of(tmp_path / "sweep.html", "sweep", *fleet, "--policy", "fifo")
    assert_loads_nothing(page)
    assert next(iter(page.plots)) == "Attainment against load"
    assert len(page.plots) == 6


def test_a_search_for_the_cheapest_fleet_is_reported_with_every_fleet_that_was_tried(tmp_path: Path) -> None:
    kinds = ("--kinds", "2xslots=8,price=2", "--rate", "3", "--duration", "10", "--seeds", "1")
    page = page_of(tmp_path / "fleet.html", "sweep", *kinds, "--policy", "fifo")
    assert_loads_nothing(page)
    assert list(page.plots) == ["Attainment against price"]


def test_a_fleet_that_never_keeps_its_targets_is_reported_too(tmp_path: Path) -> None:
    fleet = ("--instances", "1xslots=8", "--duration", "5", "--seeds", "1", "--ttft-target", "0.000001")
    page = page_of(tmp_path / "none.html", "sweep", *fleet, "--policy", "fifo")
    assert list(page.plots) == ["Attainment against load"]


def test_the_same_simulation_gives_the_same_report(tmp_path: Path) -> None:
    pages = [page_of(tmp_path / f"{n}.html", "run", "--requests", "30", "--policy", "fifo") for n in range(2)]
    assert pages[0].plots == pages[1].plots


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused = simulate("run", "--requests", "5", "--report", str(tmp_path / "run.html"))
    assert refused.exit_code == 2
    assert "install the extra simulator" in refused.stderr


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    refused = simulate("run", "--requests", "5", "--report", str(tmp_path / "missing" / "run.html"))
    assert refused.exit_code == 2
    assert "--report" in refused.stderr
