"""The sources of an earlier commit, taken out of this repository's history."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

COMMIT = "8a97c27c4adcfaebfbfc1e3703f87f672c7db15f"
"""The last commit before the contract of sessions and frames."""

CHECKOUT = Path(__file__).resolve().parents[3]
ROOTS = ("", "protos", "protos/gen", "clients")
"""Folders of a checkout that Python imports from."""


def take_out(target: Path) -> None:
    """Write the sources into ``target``.  Skips the test if the commit is not in this repository's history."""
    command = ["git", "-C", str(CHECKOUT), "archive", COMMIT, "scheduler_svc", "executor_svc", "protos", "clients"]
    try:
        archive = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the sources of commit {COMMIT[:7]} are not in this repository's history: {error}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(target, filter="data")


def environment(checkout: Path) -> dict[str, str]:
    """Variables for a Python process that runs the sources of ``checkout``, whatever is installed or its folder is."""
    return {"PYTHONPATH": os.pathsep.join(str(checkout / root) for root in ROOTS), "PYTHONSAFEPATH": "1"}
