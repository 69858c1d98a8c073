"""Where output for people goes: a terminal with colours, or a pipe without; and pictures of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType

PIPE_WIDTH = 200  # columns; a pipe has no width of its own and cutting cells there would lose data

# A picture must not fetch fonts from elsewhere when it is looked at: the reader's own monospaced one will do.
_SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def stdout_console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def show(shown: RenderableType, console: Console | None = None) -> None:
    """Prints to stdout; into a pipe without the blanks that fill a terminal's lines."""
    console = console or stdout_console()
    if console.is_terminal:
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def save_svg(shown: RenderableType, file: Path, *, title: str, width: int) -> None:
    """Writes a picture of a terminal of ``width`` columns that shows it."""
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
