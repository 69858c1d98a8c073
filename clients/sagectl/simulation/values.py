"""Types of option values: finite numbers, and files whose folder exists."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, Any

import click


class Number(click.FloatRange):
    """A finite number in a range, refused in plain words: click lets "nan" pass, which is in every range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; fail with what it should be."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        if not (self._above(number) and self._below(number)):
            self.fail(f"{value} is not {self._wanted}.", param, ctx)
        return number

    def _above(self, number: float) -> bool:
        return self.min is None or number > self.min or (number == self.min and not self.min_open)

    def _below(self, number: float) -> bool:
        return self.max is None or number < self.max or (number == self.max and not self.max_open)

    @property
    def _wanted(self) -> str:
        if self.min is not None and self.max is not None and not self.min_open:
            return f"a number from {self.min:,.10g} to {self.max:,.10g}"
        least = (
            "" if self.min is None else f" above {self.min:,.10g}" if self.min_open else f" of {self.min:,.10g} or more"
        )
        most = "" if self.max is None else f"{' and' if least else ''} up to {self.max:,.10g}"
        return f"a number{least}{most}"


class OutputFile(click.File):
    """A file to write, ``-`` for stdout.  It is opened when it is written, and its folder is looked for at once."""

    def __init__(self) -> None:
        super().__init__("w")  # stdout at once, a file when it is written first

    def convert(self, value: str | Any, param: click.Parameter | None, ctx: click.Context | None) -> IO[Any]:
        """Return the file; fail if it cannot be one, before anything is simulated."""
        if isinstance(value, str) and value != "-":
            path = Path(value)
            if path.is_dir():
                self.fail(f"{value} is a folder.", param, ctx)
            if not path.parent.is_dir():
                self.fail(f"there is no folder {path.parent} for {path.name}.", param, ctx)
        return super().convert(value, param, ctx)
