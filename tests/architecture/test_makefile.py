"""`make help` tells the truth, and CI runs what the README says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.architecture.source_tree import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
#: The parts of test-fast that are pytest, those of test-chaos and test-vllm, and what is done before some of them.
PARTS = {
    *("unit", "unit-computing", "contract", "integration", "integration-clients", "integration-pd"),
    *("integration-system-1", "integration-system-2", "chaos-1", "chaos-2"),
    *("vllm-one-engine", "vllm-two-engines"),
}
#: What `make test` does one after the other, beside making a file.
STAGES = {"node-packages", "before-engines", "engines"}
INTERNAL = PARTS | STAGES | {"need-libnuma"}


def targets() -> set[str]:
    rules = re.findall(r"^([a-z][a-z0-9 -]*):(?!=)", MAKEFILE, re.MULTILINE)
    return {name for names in rules for name in names.split()}


def test_help_lists_every_target_with_one_line() -> None:
    made = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", made.stdout, re.MULTILINE))
    assert listed.keys() == targets() - INTERNAL


def test_every_target_is_phony() -> None:
    [declared] = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert set(declared.replace("\\", "").split()) == targets()


@pytest.mark.parametrize("failing", [(), ("node-packages",), ("before-engines", "left-out"), ("generator",)])
def test_make_test_runs_every_stage_and_says_in_its_last_line_which_failed(
    tmp_path: Path, failing: tuple[str, ...]
) -> None:
    """The recipe itself, over stages that only say that they run."""
    stages, recipe = (
        re.search(pattern, MAKEFILE, re.MULTILINE)
        for pattern in (r"^TEST_STAGES = .*\n", r"^test: setup .*\n(?:\t.*\n)+")
    )
    assert stages is not None
    assert recipe is not None
    every = ["node-packages", "generator", "before-engines", "engines", "left-out"]
    rules = [f"{each}: ; @echo {each}; exit {int(each in failing)}\n" for each in every]
    given = ["PROTOC_PY := generator\n", "PACKAGES := $(MAKE) --no-print-directory\n", "setup:\n"]
    (tmp_path / "Makefile").write_text("".join([*given, stages[0], recipe[0], *rules]))

    made = subprocess.run(["make", "test"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert made.stdout.split() == every
    assert bool(made.returncode) == bool(failing)
    said = [line for line in made.stderr.splitlines() if line.startswith("make test: FAILED")]
    assert said == ([f"make test: FAILED, see above: {' '.join(failing)}"] if failing else [])


def test_ci_runs_the_command_that_the_readme_names() -> None:
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1].removeprefix("exec ")
    assert command == "make test"
    assert re.search(rf"^\$? ?{command}\b", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_the_workflow_runs_the_fast_tests_on_two_pythons_and_all_tests_on_one() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    commands = {name: [step.get("run") for step in job["steps"]] for name, job in jobs.items()}
    assert jobs["fast"]["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert "make test-fast" in commands["fast"]
    assert "make test" in commands["all"]
