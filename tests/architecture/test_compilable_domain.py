"""What the compiled domain would do otherwise than Python does, and no type checker tells (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.architecture.source_tree import ROOT, parse, python_files, shown


def without_truth_value(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of each class that has a length and does not say whether it is true."""
    for each in ast.walk(tree):
        if isinstance(each, ast.ClassDef):
            methods = {method.name for method in each.body if isinstance(method, ast.FunctionDef)}
            if "__len__" in methods and "__bool__" not in methods:
                yield each.lineno, each.name


def test_what_has_a_length_says_whether_it_is_true() -> None:
    """Compiled, ``if queue:`` of an optional one without ``__bool__`` asks only whether it is None."""
    offences = [
        f"{shown(path, line)}: {name}"
        for path in python_files(ROOT / "scheduler_svc" / "domain")
        for line, name in without_truth_value(parse(path))
    ]
    assert offences == []


def test_the_lint_notices() -> None:
    lacking = "class Queue:\n    def __len__(self) -> int: ...\n"
    assert list(without_truth_value(ast.parse(lacking))) == [(1, "Queue")]
    assert not list(without_truth_value(ast.parse(f"{lacking}    def __bool__(self) -> bool: ...\n")))


def set_up(monkeypatch: pytest.MonkeyPatch, command: str) -> tuple[object, dict[str, Any]]:
    """Run ``setup.py`` where the environment asks for the compiled domain; return its extensions and its names."""
    given: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", given.update)
    monkeypatch.setattr("mypyc.build.mypycify", lambda paths, **options: list(paths))
    monkeypatch.setattr(sys, "argv", ["setup.py", command])
    monkeypatch.setenv("SAGE_COMPILE", "1")
    monkeypatch.chdir(ROOT)
    names = runpy.run_path("setup.py")
    return given["ext_modules"], names


@pytest.mark.parametrize("command", ["build", "bdist_wheel"])
def test_builds_compile_what_is_not_to_stay_python(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    compiled, names = set_up(monkeypatch, command)
    assert isinstance(compiled, list)
    assert "scheduler_svc/domain/queue.py" in compiled
    assert not {str(names["DOMAIN"] / each) for each in names["INTERPRETED"]}.intersection(compiled)


@pytest.mark.parametrize("command", ["editable_wheel", "egg_info", "dist_info", "sdist"])
def test_an_editable_install_has_nothing_compiled_beside_the_sources(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert set_up(monkeypatch, command)[0] == []


def test_what_stays_python_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _, names = set_up(monkeypatch, "bdist_wheel")
    assert [each for each in names["INTERPRETED"] if not (ROOT / names["DOMAIN"] / each).exists()] == []


def unmarked_replacements(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of each test that replaces what it imports from the domain, and is not marked for it."""
    ours = {
        name.asname or name.name
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("scheduler_svc.domain")
        for name in each.names
    }
    for test in ast.walk(tree):
        if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) and test.name.startswith("test_"):
            marks = {ast.unparse(each) for each in test.decorator_list}
            calls = [each for each in ast.walk(test) if isinstance(each, ast.Call) and each.args]
            replaced = [each for each in calls if ast.unparse(each.func) in {"monkeypatch.setattr", "patch.object"}]
            if "pytest.mark.interpreted" not in marks:
                yield from ((test.lineno, test.name) for each in replaced if ast.unparse(each.args[0]) in ours)


def test_what_replaces_a_part_of_the_domain_is_marked() -> None:
    """Compiled callers do not see the replacement, and the test fails on that build alone."""
    [rooms] = re.findall(r"^COMPILED_ROOMS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    offences = [
        f"{shown(path, line)}: {name}"
        for room in rooms.split()
        for path in python_files(ROOT / room)
        for line, name in unmarked_replacements(parse(path))
    ]
    assert offences == []


def test_the_lint_of_replacements_notices() -> None:
    replaces = (
        "from scheduler_svc.domain.queue import Queue\n{}def test_it():\n    monkeypatch.setattr(Queue, 'add', None)\n"
    )
    assert list(unmarked_replacements(ast.parse(replaces.format("")))) == [(2, "test_it")]
    assert not list(unmarked_replacements(ast.parse(replaces.format("@pytest.mark.interpreted\n"))))
