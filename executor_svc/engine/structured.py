"""Checks structured-output constraints, in the same way for both engines."""

from __future__ import annotations

import json
from typing import Any

from executor_svc.runtime.engine_port import InvalidRequestError, StructuredKind, StructuredOutput


def field_of(kind: StructuredKind) -> str:
    """Return the contract path of a constraint's field, for error messages."""
    return f"sampling.structured_output.{kind.value}"


def choices_of(constraint: StructuredOutput) -> list[str]:
    """Return the strings of a CHOICE constraint.  Raises InvalidRequestError."""
    choices = _json_of(constraint)
    strings = isinstance(choices, list) and all(isinstance(item, str) and item for item in choices)
    if not strings or not choices:
        raise InvalidRequestError(field_of(constraint.kind), "expected a JSON array of at least one non-empty string")
    return list(choices)


def schema_of(constraint: StructuredOutput) -> Any:
    """Return the parsed schema of a JSON_SCHEMA constraint, an object or a boolean.  Raises InvalidRequestError."""
    schema = _json_of(constraint)
    if not isinstance(schema, dict | bool):
        raise InvalidRequestError(
            field_of(constraint.kind), f"a JSON schema is an object or a boolean, not {type(schema).__name__}"
        )
    return schema


def structural_tag_of(constraint: StructuredOutput) -> str:
    """Return the text of a STRUCTURAL_TAG constraint.  Raises InvalidRequestError for one without a format."""
    tag = _json_of(constraint)
    if not isinstance(tag, dict) or not isinstance(tag.get("format"), dict):
        raise InvalidRequestError(field_of(constraint.kind), 'expected a JSON object with an object "format"')
    return constraint.value


def reasoning_arguments_of(constraint: StructuredOutput) -> dict[str, Any]:
    """Return the arguments of the engine's reasoning parser.  Raises InvalidRequestError."""
    try:
        arguments = json.loads(constraint.reasoning_arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequestError("sampling.structured_output.reasoning_arguments", "expected a JSON object")
    return arguments


def _json_of(constraint: StructuredOutput) -> Any:
    try:
        return json.loads(constraint.value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(field_of(constraint.kind), f"broken JSON: {error}") from error
