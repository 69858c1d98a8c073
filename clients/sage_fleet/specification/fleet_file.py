"""Reads ``fleet.yaml``; whatever is wrong is one line that names the file and the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sage_common.configuration import in_one_line
from sage_fleet.errors import SpecificationError
from sage_fleet.specification.fleet import Fleet

BYTES_LIMIT = 1024 * 1024
"""Largest file that is read."""


def read_fleet(path: Path) -> Fleet:
    """Read a fleet's specification.

    Raises:
        SpecificationError: the file cannot be read, is not YAML, or names an unknown field or a bad value.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_LIMIT + 1)
    except OSError as error:
        raise SpecificationError(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > BYTES_LIMIT:
        raise SpecificationError(f"{path}: more than {BYTES_LIMIT} bytes")
    try:
        return parse_fleet(content)
    except SpecificationError as error:
        raise SpecificationError(f"{path}: {error}") from error


def parse_fleet(content: str | bytes) -> Fleet:
    """Parse a fleet's specification.  Raises SpecificationError, which names the field."""
    try:
        found = yaml.load(content, _OneValueEach)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecificationError(f"not YAML: {_in_one_line(error)}") from error
    if not isinstance(found, dict):
        raise SpecificationError("expected fields, as in `groups: ...`")
    try:
        return Fleet.model_validate(found)
    except ValidationError as error:
        raise SpecificationError(in_one_line(error)) from error


def _in_one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())


class _OneValueEach(yaml.SafeLoader):
    """YAML in which a key stands once in its mapping, and nothing is written by reference."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse aliases, a few of which make a file of gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice, of which only the last value would count."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key is no name")
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value} stands twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)
