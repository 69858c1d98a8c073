"""What documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.architecture.source_tree import ROOT

LINK = re.compile(r"(?<!`)\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
PYTHON_FILE = re.compile(r"`([\w./-]+\.py)`")
GUIDES = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MADE = {"build", "dist"}
SHOWN_ONLY = {"shortest_first.py", "test_shortest_first.py", "shares.py"}  # files that a guide has its reader write


def tree() -> list[Path]:
    """Every file but those that are hidden or made: not by git, which a bare machine may lack."""
    rooms = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in MADE]
    files = [path for room in rooms for path in room.rglob("*") if path.is_file()]
    return [*ROOT.glob("*.md"), *ROOT.glob("*.py"), *(path for path in files if "node_modules" not in path.parts)]


def broken_links(document: Path, text: str) -> list[str]:
    return [target for target in LINK.findall(text) if not (document.parent / target).exists()]


def missing_files(text: str, files: list[str]) -> list[str]:
    """Files that a document names and that no path in the tree ends in."""
    named = set(PYTHON_FILE.findall(text)) - SHOWN_ONLY
    return sorted(name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in files))


def test_every_link_leads_to_a_file() -> None:
    documents = [path for path in tree() if path.suffix == ".md"]
    assert len(documents) > len(GUIDES)

    broken = {str(path.relative_to(ROOT)): broken_links(path, path.read_text()) for path in documents}

    assert {path: links for path, links in broken.items() if links} == {}


def test_every_python_file_that_a_guide_names_exists() -> None:
    files = [path.relative_to(ROOT).as_posix() for path in tree()]

    missing = {path.name: missing_files(path.read_text(), files) for path in GUIDES}

    assert {name: gone for name, gone in missing.items() if gone} == {}


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    documents = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in documents if f"]({name})" not in index} == set()


def test_a_broken_pointer_is_found() -> None:
    text = "see [this](nowhere.md), [that](README.md) and `no_such_file.py`"
    assert broken_links(ROOT / "README.md", text) == ["nowhere.md"]
    assert missing_files(text, ["executor_svc/wiring.py"]) == ["no_such_file.py"]
