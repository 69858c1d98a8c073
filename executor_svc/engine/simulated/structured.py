"""Structured output of the simulated engine: makes a text that satisfies the constraint.

The text follows from the constraint and a number, which for a greedy or seeded request is always the same.  Such a
request can therefore be replayed or continued from its history, but, as in a real engine, not resumed from prompt +
emitted tokens: there is no grammar state to rebuild.  A constraint that is not supported is refused, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from executor_svc.engine.structured import choices_of, field_of, schema_of
from executor_svc.runtime.engine_port import InvalidRequestError, StructuredKind, StructuredOutput

SUPPORTED = frozenset({StructuredKind.CHOICE, StructuredKind.JSON_OBJECT, StructuredKind.JSON_SCHEMA})
OBJECTS = 1_000  # different texts for "any JSON object"
_DEPTH_LIMIT = 32
_LENGTH_LIMIT = 4096  # array items or characters
_ANNOTATIONS = frozenset({"$schema", "$id", "title", "description", "default", "examples", "format", "$comment"})
_UNDERSTOOD = {
    "object": frozenset({"type", "properties", "required", "additionalProperties"}),
    "array": frozenset({"type", "items", "minItems", "maxItems"}),
    "string": frozenset({"type", "minLength", "maxLength"}),
    "integer": frozenset({"type", "minimum", "maximum"}),
    "number": frozenset({"type", "minimum", "maximum"}),
    "boolean": frozenset({"type"}),
    "null": frozenset({"type"}),
}


def satisfying_texts(constraint: StructuredOutput, pick: int) -> Iterator[str]:
    """Yield all texts made here that satisfy ``constraint``, beginning with the one that ``pick`` selects.

    Raises InvalidRequestError.
    """
    match constraint.kind:
        case StructuredKind.CHOICE:
            choices = choices_of(constraint)
            first = pick % len(choices)
            yield from (*choices[first:], *choices[:first])
        case StructuredKind.JSON_OBJECT:
            yield from (json.dumps({"answer": (pick + number) % OBJECTS}) for number in range(OBJECTS))
        case StructuredKind.JSON_SCHEMA:
            yield _schema_text(constraint)
        case StructuredKind.REGEX | StructuredKind.GRAMMAR | StructuredKind.STRUCTURAL_TAG:
            raise InvalidRequestError(field_of(constraint.kind), _why_not(constraint))


def _schema_text(constraint: StructuredOutput) -> str:
    schema = schema_of(constraint)
    try:
        return json.dumps(_instance(schema, _DEPTH_LIMIT))
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(field_of(constraint.kind), str(error)) from error


def _why_not(constraint: StructuredOutput) -> str:
    if constraint.kind is StructuredKind.REGEX:
        try:
            re.compile(constraint.value)
        except re.error as error:
            return f"broken regular expression: {error}"
    return f"the simulated engine does not support {constraint.kind.value}"


def _instance(schema: Any, depth: int) -> Any:
    """Make the simplest instance of a schema.  Raises ValueError or TypeError."""
    if schema is True or schema == {}:
        return {}
    if not isinstance(schema, dict):
        raise ValueError(f"a JSON schema is an object, not {json.dumps(schema)}")
    if not depth:
        raise ValueError(f"schemas nest at most {_DEPTH_LIMIT} levels here")
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _first_of_enum(schema["enum"])
    kind = schema.get("type", "object" if "properties" in schema else None)
    if not isinstance(kind, str) or kind not in _UNDERSTOOD:
        raise ValueError(f"unknown or unsupported type {kind!r}")
    unknown = sorted(set(schema) - _UNDERSTOOD[kind] - _ANNOTATIONS)
    if unknown:
        raise ValueError(f"the simulated engine does not support {', '.join(unknown)} in a schema of type {kind}")
    return _of_type(kind, schema, depth)


def _first_of_enum(values: Any) -> Any:
    if not isinstance(values, list) or not values:
        raise ValueError("enum must be a non-empty array")
    return values[0]


def _of_type(kind: str, schema: dict[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties", {})
            if not isinstance(properties, dict):
                raise ValueError("properties must be an object")
            return {name: _instance(inner, depth - 1) for name, inner in properties.items()}
        case "array":
            length = _length(schema.get("minItems", 0), 1, schema.get("maxItems"))
            return [_instance(schema.get("items", {}), depth - 1) for _ in range(length)]
        case "string":
            length = _length(schema.get("minLength", 0), 4, schema.get("maxLength"))
            return ("word" * (length // 4 + 1))[:length]
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return schema.get("minimum", schema.get("maximum", 0))


def _length(least: int, usual: int, most: int | None) -> int:
    length = max(least, usual) if most is None else min(max(least, usual), most)
    if not 0 <= length <= _LENGTH_LIMIT:
        raise ValueError(f"lengths of 0 to {_LENGTH_LIMIT} are supported here, not {length}")
    return length
