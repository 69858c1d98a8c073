"""Every command of sagectl that a document or an alert names is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sagectl.cli import sagectl

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docker/**/*.md"),
    ROOT / "docker/prometheus/alerts.yml",
]
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
COMMAND = re.compile(r"(?<![\w./-])sagectl((?: +[a-z][a-z-]*)+)")


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the lower-case words after each ``sagectl`` in a page's code."""
    for code in CODE.findall(page.read_text()):
        for line in code.splitlines():
            yield from (words.split() for words in COMMAND.findall(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    for words in commands(page):
        group: click.Command = sagectl
        for word in words:
            if not isinstance(group, click.Group):
                break  # what follows are arguments
            context = click.Context(group)
            found = group.get_command(context, word)
            assert found is not None, f"{page.name}: sagectl {' '.join(words)}"
            group = found


def test_the_pages_name_commands() -> None:
    assert sum(1 for page in PAGES for _ in commands(page)) > 50
