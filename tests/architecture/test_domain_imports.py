"""`scheduler_svc/domain` is pure: no I/O, no clock of its own, no asyncio.  It has the standard library and numpy.

`mypy_extensions` marks classes for its compiled build and does nothing else.

It names kinds of media as executors, clients and the gateway do (`sage_media.kinds`), and suggests names as the clients
do (`sage_common.near_names`); both are as pure.
A simulator, a test and the service share it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, imported_modules, parse, python_files, shown

OWN = "scheduler_svc.domain"
SHARED = ("sage_media.kinds", "sage_common.near_names")
ALLOWED = {
    "numpy",  # scores of all instances at once
    "mypy_extensions",  # marks of the compiled build
}
NOT_PURE = {
    "asyncio", "concurrent", "multiprocessing", "threading", "queue",  # concurrency
    "time", "datetime", "sched",  # clocks
    "io", "os", "pathlib", "shutil", "socket", "sqlite3", "subprocess", "tempfile", "urllib",  # the outside
    "logging",
}  # fmt: skip


def test_domain_imports_only_the_pure_part_of_the_standard_library_numpy_and_itself() -> None:
    offences = [
        f"{shown(path, line)}: imports {module}"
        for path in [*python_files(ROOT / "scheduler_svc" / "domain"), *(module_file(each) for each in SHARED)]
        for line, module in offences_in(parse(path))
    ]
    assert offences == []


def module_file(module: str) -> Path:
    return ROOT.joinpath("protos", *module.split(".")).with_suffix(".py")


def offences_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, module in imported_modules(tree):
        top = module.partition(".")[0]
        if f"{module}.".startswith((f"{OWN}.", *(f"{each}." for each in SHARED))) or top in ALLOWED:
            continue
        if top not in sys.stdlib_module_names or top in NOT_PURE:
            yield line, module


@pytest.mark.parametrize(
    "source",
    [
        "import grpc",
        "import asyncio",
        "from time import monotonic",
        "from scheduler_svc.control import relay",
        "import scheduler_svc.config",
        "from sage_media.urls import shown",
        "from sage_common.clock import AsyncioClock",
        "from sage.controlplane.v1 import common_pb2",
        "def f():\n    import pydantic",
    ],
)
def test_the_lint_catches(source: str) -> None:
    assert list(offences_in(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import heapq",
        "import numpy as np",
        "from mypy_extensions import mypyc_attr",
        "from scheduler_svc.domain.request import Request",
        "from .request import Request",
        "from sage_media.kinds import MediaKind",
        "from sage_common.near_names import names_instead",
    ],
)
def test_the_lint_lets_pass(source: str) -> None:
    assert list(offences_in(ast.parse(source))) == []
