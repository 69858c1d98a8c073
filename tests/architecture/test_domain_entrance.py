"""`Scheduler` is the only way into what `scheduler_svc/domain` keeps: nobody else holds its registry, pools or ledger.

Values (requests, decisions, instances, pairs) come out of it and are read where they are needed.  The domain's own
tests and its benchmark may look behind the entrance.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.architecture.source_tree import ROOT, imported_modules, parse, python_files, shown

DOMAIN = "scheduler_svc.domain"
BEHIND = {
    f"{DOMAIN}.{name}"
    for name in (
        "backfilling.Backfilling",
        "door.Door",
        "entrance.parts.Parts",
        "give_ups.GiveUps",
        "policies.fleet_signals.FleetSignals",
        "capacity.ledger.Ledger",
        "fleet.engine_reports.EngineReports",
        "pd.pairs.PairBook",
        "placement.chooser.Chooser",
        "placement.split_planner.SplitPlanner",
        "placement.placer.Placer",
        "policies.in_force.PolicyInForce",
        "fleet.pool.Pool",
        "quarantined.Quarantined",
        "queue.ModelQueue",
        "queue_order.QueueOrder",
        "fleet.registry.Registry",
        "fleet.running_attempts.RunningAttempts",
        "roles.role_balancer.RoleBalancer",
        "scheduling_pass.SchedulingPass",
    )
}
OWN_TESTS = {
    ROOT / "tests" / "unit" / "domain",
    ROOT / "tests" / "contract" / "policies",
    ROOT / "tests" / "bench" / "core",
}


def test_nothing_outside_the_domain_reaches_behind_its_entrance() -> None:
    files = [
        path
        for path in python_files(ROOT / "scheduler_svc", ROOT / "tests")
        if ROOT / "scheduler_svc" / "domain" not in path.parents and not OWN_TESTS.intersection(path.parents)
    ]
    offences = [f"{shown(path, line)}: {what}" for path in files for line, what in offences_in(parse(path))]
    assert offences == []


def test_what_stands_behind_the_entrance_exists() -> None:
    for name in BEHIND:
        module, _, noun = name.rpartition(".")
        tree = parse(ROOT / (module.replace(".", "/") + ".py"))
        assert noun in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}, name


def offences_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, module in imported_modules(tree):
        if module in BEHIND:
            yield line, f"imports {module}"
    private = private_parts()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in private and _is_domain(node.value):
            yield node.lineno, f"uses {ast.unparse(node)}"


@cache
def private_parts() -> frozenset[str]:
    """Names of private attributes and methods of `Scheduler` and the parts that it is made of."""
    domain = ROOT / "scheduler_svc" / "domain"
    classes = [
        node
        for path in [domain / "scheduler.py", *python_files(domain / "entrance")]
        for node in parse(path).body
        if isinstance(node, ast.ClassDef)
    ]
    names = [node.name for each in classes for node in each.body if isinstance(node, ast.FunctionDef)]
    names += [node.attr for each in classes for node in ast.walk(each) if isinstance(node, ast.Attribute)]
    return frozenset(name for name in names if name.startswith("_") and not name.startswith("__"))


def _is_domain(owner: ast.expr) -> bool:
    """Whether an expression is a `Scheduler` by its name: `scheduler`, `self._scheduler`, `plane.scheduler`."""
    name = ast.unparse(owner).rpartition(".")[2]
    return name in ("scheduler", "_scheduler")


@pytest.mark.parametrize(
    "source",
    [
        "from scheduler_svc.domain.fleet.registry import Registry",
        "from scheduler_svc.domain.fleet.pool import Pool as P",
        "def f():\n    from scheduler_svc.domain.capacity.ledger import Ledger",
        "scheduler._registry.get('a')",
        "self._scheduler._splits.pairs",
        "world.plane.scheduler._placer",
    ],
)
def test_the_lint_catches(source: str) -> None:
    assert list(offences_in(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "from scheduler_svc.domain.scheduler import Scheduler",
        "from scheduler_svc.domain.queue import QueueView",
        "self._scheduler.instance('a').state",
        "self._registry.get('a')",
        "scheduler.__class__",
        "scheduler._services()",  # of the service in scheduler_service.py, which goes by the same name
    ],
)
def test_the_lint_lets_pass(source: str) -> None:
    assert list(offences_in(ast.parse(source))) == []
