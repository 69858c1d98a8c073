"""Where things are in the checkout, and how the tests here read them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "protos" / "gen"
PACKAGES = [
    ROOT / "scheduler_svc",
    ROOT / "executor_svc",
    ROOT / "protos" / "sage_common",
    ROOT / "protos" / "sage_media",
    ROOT / "protos" / "sage_telemetry",
    ROOT / "protos" / "sage_wire",
    *(ROOT / "clients" / name for name in ("sage_client", "sage_fleet", "sage_local", "sage_simulator", "sagectl")),
]


def python_files(*folders: Path) -> list[Path]:
    """Every Python source below the folders; at least one, or the caller checks nothing."""
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    assert files, f"no Python files below {', '.join(map(str, folders))}"
    return files


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported_modules(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and absolute dotted name of each module imported anywhere in the tree, also inside functions.

    `from a import b` counts as `a.b`, since b may be a module.  Relative imports stay inside their own
    package and are left out.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def shown(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"
