"""The plug-in of docs/write-a-policy.md, taken out of the page."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

_PAGE = Path(__file__).parents[3] / "docs" / "write-a-policy.md"
_FILE = re.compile(r"^`(?P<name>[\w.]+)`[^\n]*:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """Return the text of each file that the page shows, by the name above its block."""
    return {found["name"]: found["text"] for found in _FILE.finditer(_PAGE.read_text(encoding="utf-8"))}


def entry_points() -> dict[str, str]:
    """Return what the page's pyproject.toml offers under the group ``sage.policies``: name to ``module:factory``."""
    offered: dict[str, str] = tomllib.loads(files()["pyproject.toml"])["project"]["entry-points"]["sage.policies"]
    return offered


def run(name: str) -> ModuleType:
    """Run a Python file of the page as a module that others of its files can import."""
    module = ModuleType(name.removesuffix(".py"))
    sys.modules[module.__name__] = module
    exec(compile(files()[name], f"{_PAGE.name}:{name}", "exec"), module.__dict__)
    return module


def install(folder: Path) -> None:
    """Put the plug-in into a folder as an installer would: its module, and the metadata that names its entry points."""
    (folder / "shortest_first.py").write_text(files()["shortest_first.py"], encoding="utf-8")
    metadata = folder / "sage_shortest_first-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sage-shortest-first\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points().items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[sage.policies]", *lines, ""]))
