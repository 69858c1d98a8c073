"""The client installs alone: what its extra brings is enough for it, and brings nothing of a service."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.architecture.source_tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = (
    "sage_client",
    "sage_fleet",
    "sage_local",
    "sage_simulator",
    "sagectl",
    "sage_wire",
    "sage_common",
    "sage_media",
    "sage",
)
OF_SERVICES = {"tokenizers", "jinja2", "pydantic", "pydantic-settings", "prometheus-client", "vllm", "huggingface-hub"}

WITHOUT = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in absent or name.partition(".")[0] in absent or ".".join(name.split(".")[:2]) in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv.pop().split(","))
sys.meta_path.insert(0, Refuse())
"""


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def closure(requirements: list[str]) -> set[str]:
    """Names of all distributions that these requirements install here."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        each = waiting.pop()
        if name_of(each.name) in found or (each.marker is not None and not each.marker.evaluate({"extra": ""})):
            continue
        found.add(name_of(each.name))
        waiting += [Requirement(text) for text in metadata.requires(each.name) or ()]
    return found


def installed_by(*extras: str) -> set[str]:
    of_extras = [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    return closure(PROJECT["dependencies"] + of_extras)


def modules_beyond(distributions: set[str]) -> set[str]:
    """Modules of this environment that none of these distributions brings; ``opentelemetry`` is shared by several."""
    brought = {module: {name_of(each) for each in by} for module, by in metadata.packages_distributions().items() if by}
    absent = {module for module, by in brought.items() if not by & distributions and module not in CLIENT}
    return absent | {"opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto"}


def run(program: str, *arguments: str, absent: set[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + program, *arguments, ",".join(sorted(absent))]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd=ROOT)


@pytest.mark.parametrize("extras", [(), ("client",)])
def test_the_client_brings_no_requirement_of_a_service(extras: tuple[str, ...]) -> None:
    brought = installed_by(*extras)
    assert brought & OF_SERVICES == set()
    assert {name for name in brought if name.startswith("opentelemetry")} == {"opentelemetry-api"}


def test_the_sdk_imports_with_what_the_base_brings() -> None:
    done = run("import sage_client", absent=modules_beyond(installed_by()))
    assert (done.returncode, done.stderr) == (0, "")


def test_sagectl_runs_with_what_its_extra_brings() -> None:
    program = "from sagectl.__main__ import main; main()"
    absent = modules_beyond(installed_by("client"))
    assert {"pydantic", "tokenizers"} <= absent
    for arguments in (("--help",), ("up", "--help"), ("demo", "--help"), ("simulate", "run", "--help")):
        done = run(program, *arguments, absent=absent)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: sagectl ")


def test_the_simulator_runs_with_what_its_extra_brings_and_the_schedulers_domain(tmp_path: Path) -> None:
    program = "from sagectl.__main__ import main; main()"
    absent = modules_beyond(installed_by("simulator")) - {"scheduler_svc"}
    assert {"pydantic", "tokenizers"} <= absent
    report = tmp_path / "report.html"
    done = run(program, "simulate", "run", "--requests", "5", "--report", str(report), absent=absent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("5 requests on 8 instances")
    assert report.stat().st_size > 10_000


def test_sagectl_without_its_extra_names_it() -> None:
    program = "from sagectl.__main__ import main; main()"
    done = run(program, "--help", absent=modules_beyond(installed_by()))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "install the extra client" in done.stderr


def test_simulate_without_its_extra_names_it() -> None:
    program = "from sagectl.__main__ import main; main()"
    done = run(program, "simulate", "run", "--requests", "5", absent={"numpy"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "install the extra simulator" in done.stderr


def test_a_described_fleet_is_read_with_what_its_extra_brings(tmp_path: Path) -> None:
    program = "from sagectl.__main__ import main; main()"
    (tmp_path / "fleet.yaml").write_text("groups: {chat: {model: m, count: 2}}")
    absent = modules_beyond(installed_by("fleet"))
    assert {"tokenizers", "numpy"} <= absent
    done = run(program, "fleet", "apply", str(tmp_path / "fleet.yaml"), "--dry-run", absent=absent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "scheduler: starts\nchat: 2 executors start\n"


def test_fleet_without_its_extra_names_it() -> None:
    program = "from sagectl.__main__ import main; main()"
    done = run(program, "fleet", "status", "fleet.yaml", absent={"pydantic"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "install the extra fleet" in done.stderr


def test_packages_go_by_names_of_their_own() -> None:
    """What is installed beside other distributions must not take a common word for its name."""
    taken = {path.parent.name for path in (ROOT / "clients").glob("*/__init__.py")}
    assert taken == {"sage_client", "sage_fleet", "sage_gateway", "sage_local", "sage_simulator", "sagectl"}
