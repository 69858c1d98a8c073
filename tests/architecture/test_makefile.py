"""`make help` tells the truth, and CI runs what the README says."""

from __future__ import annotations

import re
import subprocess

import yaml

from tests.architecture.source_tree import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
#: The parts of test-fast that are pytest, those of test-chaos and test-vllm, and what is done before some of them.
PARTS = {
    *("unit", "unit-computing", "contract", "integration", "integration-clients", "integration-pd"),
    *("integration-system-1", "integration-system-2", "chaos-1", "chaos-2"),
    *("vllm-one-engine", "vllm-two-engines"),
}
INTERNAL = PARTS | {"need-libnuma", "node-packages"}


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
