"""How a command prints what it found: as text or a table for people, or in a format for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import click

from sagectl.output.json_output import print_json
from sagectl.output.yaml_output import print_yaml


class Format(Enum):
    """A format of ``-o``."""

    TABLE = "table"  # text or a table; a table leaves out columns where a terminal is too narrow
    WIDE = "wide"  # a table with all columns
    JSON = "json"  # one document; of a stream one a line
    YAML = "yaml"  # one document; of a stream several
    NAME = "name"  # ids or names only, one a line
    CSV = "csv"  # of usage only


@dataclass(frozen=True, slots=True)
class Output:
    """The format that was asked for."""

    format: Format = Format.TABLE

    @property
    def wide(self) -> bool:
        """Whether tables have all columns."""
        return self.format is Format.WIDE

    @property
    def for_people(self) -> bool:
        """Whether text or tables were asked for."""
        return self.format in (Format.TABLE, Format.WIDE)

    def printed(self, value: Any, *, names: Iterable[str]) -> bool:
        """Print a value for programs, or the ``names`` of what is in it.

        Returns:
            False if it is to be printed for people, which the caller does then.
        """
        if self.format is Format.NAME:
            for name in names:
                click.echo(name)
        elif self.format is Format.JSON:
            print_json(value)
        elif self.format is Format.YAML:
            print_yaml(value)
        else:
            return False
        return True

    def printed_next(self, value: Any, *, name: str = "") -> bool:
        """Print one of several values that come one after the other: an object a line, or a document of its own.

        Returns:
            As ``printed``.  With NAME an empty name prints nothing.
        """
        if self.format is Format.JSON:
            print_json(value, indent=None)
            return True
        if self.format is Format.YAML:
            click.echo("---")
        return self.printed(value, names=[name] if name else ())
