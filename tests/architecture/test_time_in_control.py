"""`scheduler_svc/control` takes time, sleeping and time-outs from the injected clock only.

Whole-system fault schedules run it in virtual time; one real sleep in there would make them wait, or lie.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source_tree import ROOT, imported_modules, parse, python_files, shown

TIME_MODULES = {"time", "datetime", "sched", "signal"}
ASYNCIO_TIME = {"sleep", "wait_for", "timeout", "timeout_at"}
LOOP_TIME = {"time", "call_later", "call_at"}


def test_control_takes_time_from_the_injected_clock_only() -> None:
    offences = [
        f"{shown(path, line)}: {what}"
        for path in python_files(ROOT / "scheduler_svc" / "control")
        for line, what in offences_in(parse(path))
    ]
    assert offences == []


def offences_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, module in imported_modules(tree):
        top, _, name = module.partition(".")
        if top in TIME_MODULES or (top == "asyncio" and name in ASYNCIO_TIME):
            yield line, f"imports {module}"
    allowed = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_one_turn(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in allowed:
            yield from _attribute_offence(node)
        if isinstance(node, ast.Call) and _waits_with_timeout(node):
            yield node.lineno, f"{_name(node.func)} with a time-out"


def _attribute_offence(node: ast.Attribute) -> Iterator[tuple[int, str]]:
    owner = _name(node.value)
    if owner == "asyncio" and node.attr in ASYNCIO_TIME:
        yield node.lineno, f"asyncio.{node.attr}"
    elif node.attr in LOOP_TIME and ("loop" in owner.rpartition(".")[2]):
        yield node.lineno, f"{owner}.{node.attr}"


def _waits_with_timeout(call: ast.Call) -> bool:
    timed = any(keyword.arg == "timeout" for keyword in call.keywords)
    return timed and _name(call.func) in {"asyncio.wait", "asyncio.as_completed"}


def _is_one_turn(call: ast.Call) -> bool:
    """`asyncio.sleep(0)` gives the loop a turn and takes no time."""
    return (
        _name(call.func) == "asyncio.sleep"
        and len(call.args) == 1
        and isinstance(call.args[0], ast.Constant)
        and call.args[0].value == 0
    )


def _name(node: ast.AST) -> str:
    """The dotted name of an expression; calls read as what they call, anything else as empty."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return _name(node.func)
    return ""


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import time as t",
        "from time import monotonic",
        "import datetime",
        "from asyncio import sleep",
        "from asyncio import wait_for as bounded",
        "asyncio.sleep(1)",
        "asyncio.sleep(delay)",
        "asyncio.wait_for(task, 1)",
        "asyncio.timeout(1)",
        "asyncio.timeout_at(1)",
        "asyncio.get_running_loop().time()",
        "loop.time()",
        "self._loop.call_later(1, f)",
        "loop.call_at(1, f)",
        "asyncio.wait(tasks, timeout=1)",
        "sleep = asyncio.sleep",
    ],
)
def test_the_lint_catches(source: str) -> None:
    assert list(offences_in(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "asyncio.sleep(0)",
        "clock.sleep(1)",
        "self._clock.call_at(when, f)",
        "asyncio.wait(tasks)",
        "loop.create_task(f())",
    ],
)
def test_the_lint_lets_pass(source: str) -> None:
    assert list(offences_in(ast.parse(source))) == []
