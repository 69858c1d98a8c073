"""Prints output for people, with colours on a terminal, and writes SVG pictures of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType

PIPE_WIDTH = 200  # columns; a pipe has no width, and truncated cells would lose data there

# A picture must not load fonts from the network when it is displayed; any monospaced font will do.
_SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def stdout_console() -> Console:
    """Return a console for stdout; into a pipe it writes lines of 200 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def show(shown: RenderableType, console: Console | None = None) -> None:
    """Print to stdout; into a pipe without the trailing blanks of a terminal's lines."""
    console = console or stdout_console()
    if console.is_terminal:
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def save_svg(shown: RenderableType, file: Path, *, title: str, width: int) -> None:
    """Write ``shown`` as an SVG picture of a terminal with ``width`` columns."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(
            record=True,
            file=nowhere,
            width=width,
            force_terminal=True,
            color_system="truecolor",
            highlight=False,
        )
        console.print(shown)
    file.write_text(console.export_svg(title=title, code_format=_SVG_FORMAT))
