"""Debian packages: one list, and `make test` never hides what a missing one kept it from checking."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.architecture.source_tree import ROOT

SCRIPT = ROOT / ".ci" / "packages.sh"
PROGRAMS = (
    "make",
    "python3",
    "openssl",
    "initdb",
    "faketime",
    "prometheus",
    "promtool",
    "docker-compose",
    "kubectl",
    "npm",
    "node",
    "go",
    "protoc-gen-go",
    "protoc-gen-go-grpc",
    "gcc",
)
SHELL = shutil.which("sh") or "/bin/sh"


class Machine:
    """A PATH of its own, on which each program of the packages is a stand-in that succeeds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in PROGRAMS:
            self.put(name, "exit 0")

    def put(self, name: str, body: str) -> None:
        program = self._folder / name
        program.write_text(f"#!{SHELL}\n{body}\n")
        program.chmod(0o755)

    def lacks(self, name: str) -> None:
        (self._folder / name).unlink()

    def lacks_libnuma(self) -> None:
        self.put("python3", 'case "$2" in *libnuma*) exit 1 ;; esac')

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SHELL, str(SCRIPT), *arguments],
            env={"PATH": str(self._folder)} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def names(use: str = "") -> list[str]:
    listed = subprocess.run([SHELL, SCRIPT, "names", use], capture_output=True, text=True, check=True, timeout=100)
    return listed.stdout.split()


def test_a_machine_with_every_package_leaves_nothing_out(machine: Machine) -> None:
    for ci in ("", "true"):
        told = machine.run("left-out", CI=ci)
        assert (told.returncode, told.stdout) == (0, "make test: nothing was left out for want of a package\n")


@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("promtool", "prometheus"),
        ("prometheus", "prometheus"),
        ("openssl", "openssl"),
        ("initdb", "postgresql"),
        ("docker-compose",) * 2,
        ("kubectl", "kubernetes-client"),
        ("node", "npm"),
        ("protoc-gen-go", "protoc-gen-go-1-5"),
        ("protoc-gen-go-grpc", "protoc-gen-go-grpc"),
        ("gcc", "gcc"),
    ],
)
def test_the_last_lines_name_the_missing_package_and_how_to_install_it(
    machine: Machine, program: str, package: str
) -> None:
    machine.lacks(program)
    told = machine.run("left-out")
    *_, left_out, _, command = told.stdout.splitlines()
    assert told.returncode == 0
    assert re.match(rf"  {package} +\w", left_out)
    assert command == f"  apt-get install --no-install-recommends {package}"


def test_several_missing_packages_are_one_command(machine: Machine) -> None:
    machine.lacks("openssl")
    machine.lacks("docker-compose")
    machine.lacks_libnuma()
    assert machine.run("left-out").stdout.endswith("install --no-install-recommends libnuma1 openssl docker-compose\n")


def test_continuous_integration_fails_for_what_is_left_out(machine: Machine) -> None:
    machine.lacks("promtool")
    told = machine.run("left-out", CI="true")
    assert told.returncode == 1
    assert "prometheus" in told.stdout
    assert told.stderr.startswith("error: CI=true")


def test_a_missing_libnuma_matters_only_without_an_nvidia_gpu(machine: Machine) -> None:
    machine.lacks_libnuma()
    assert machine.run("has", "libnuma1").returncode != 0
    machine.put("nvidia-smi", "exit 0")
    assert machine.run("has", "libnuma1").returncode == 0


def test_the_compiled_domain_needs_the_headers_of_python(machine: Machine) -> None:
    machine.put("python3", 'case "$2" in *Python.h*) exit 1 ;; esac')
    assert machine.run("left-out").stdout.endswith("install --no-install-recommends python3-dev\n")
    [recipe] = re.findall(r"^before-engines: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "has gcc && $(PACKAGES) has python3-dev; then echo test-compiled" in recipe


def test_dockers_own_compose_plugin_does_for_docker_compose(machine: Machine) -> None:
    machine.lacks("docker-compose")
    machine.put("docker", "exit 0")
    assert machine.run("has", "docker-compose").returncode == 0


def test_a_package_that_is_not_listed_is_an_error(machine: Machine) -> None:
    asked = machine.run("has", "prometeus")
    assert (asked.returncode, asked.stderr) == (2, "error: 'prometeus' is not a package of this list\n")


def test_root_installs_what_is_missing_and_nothing_else(machine: Machine) -> None:
    machine.put("id", "echo 0")
    machine.put("apt-get", 'echo apt-get "$@"')
    assert machine.run("install").stdout == ""
    machine.lacks("openssl")
    assert machine.run("install").stdout.endswith(" --no-install-recommends openssl\n")


def test_without_root_the_missing_packages_are_an_error(machine: Machine) -> None:
    machine.put("id", "echo 1000")
    machine.lacks("openssl")
    asked = machine.run("install")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == "error: as root: apt-get install --no-install-recommends openssl\n"


def test_every_listed_package_can_be_asked_for(machine: Machine) -> None:
    assert sorted(names()) == sorted(names("demo") + names("test"))
    for package in names():
        assert machine.run("has", package).returncode == 0


def test_the_readme_names_the_packages_of_the_list() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"apt-get install --no-install-recommends ([a-z0-9 \\\n-]+?) +#", readme)
    assert [command.replace("\\", "").split() for command in commands] == [names("demo"), names("test")]


def test_continuous_integration_installs_the_packages_of_the_list() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    workflow = "\n".join(step.get("run", "") for step in jobs["all"]["steps"])
    for text in ((ROOT / ".ci" / "run").read_text(), workflow):
        assert "sh .ci/packages.sh install\n" in text
        assert "apt-get" not in text


def test_continuous_integration_leaves_nothing_out() -> None:
    """Whatever calls `.ci/run`: only with CI=true does `make test` fail for what it left out."""
    assert "\nexport CI=true" in (ROOT / ".ci" / "run").read_text()


def test_what_the_tests_skip_without_is_in_the_list() -> None:
    """A test that skips for a missing program would otherwise go unseen in continuous integration."""
    brought = {"openssl": "openssl", "promtool": "prometheus", "prometheus": "prometheus", "initdb": "postgresql"}
    brought |= {"docker": "docker-compose", "docker-compose": "docker-compose", "node": "npm", "go": "golang-go"}
    brought |= {"kubectl": "kubernetes-client"}
    asked = re.compile(r"""(?:shutil\.which|\btool)\("([^"]+)\"""")
    tests = (path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    found = {name for path in tests for name in asked.findall(path.read_text())}
    assert found >= {"openssl", "initdb", "promtool", "docker-compose"}
    assert {brought.get(name, name) for name in found} <= set(names())
