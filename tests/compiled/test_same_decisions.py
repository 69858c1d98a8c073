"""The compiled domain decides as the interpreted one does.  ``make test-compiled`` builds it and runs this."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler_svc.domain.build import is_compiled

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT, ROOT / "protos", ROOT / "protos/gen", ROOT / "clients")
BUILD = Path(os.environ.get("SAGE_COMPILED_BUILD", ""))  # where the packages are, compiled

pytestmark = pytest.mark.skipif(not BUILD.name, reason="make test-compiled builds the domain")


def decisions(*path: Path) -> list[str]:
    """Return what ``decisions.py`` prints with these folders first."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (*path, *SOURCES))),
        "PYTHONHASHSEED": "0",  # sets are written out in the same order
    }
    command = [sys.executable, "-P", "-m", "tests.compiled.decisions"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_these_tests_run_on_the_compiled_domain() -> None:
    assert is_compiled()


def test_the_build_is_that_of_the_sources() -> None:
    names = [str(file.relative_to(ROOT)) for file in (ROOT / "scheduler_svc/domain").rglob("*.py")]
    assert filecmp.cmpfiles(ROOT, BUILD, names, shallow=False)[0] == names, "make compiled"


@pytest.mark.timeout(600)
def test_it_decides_as_the_interpreted_one_does() -> None:
    (build, *compiled), (other_build, *interpreted) = decisions(BUILD), decisions()

    assert (build, other_build) == ("build: compiled", "build: interpreted")
    assert len(compiled) == 10
    assert compiled == interpreted
