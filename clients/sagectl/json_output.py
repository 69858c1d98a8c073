"""The SDK's values as JSON: a value's fields are its keys, words are lower case, durations are seconds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

import click

import sage_client as sage


def plain(value: Any) -> Any:
    """``value`` in terms of dict, list, str, numbers, bool and None."""
    if isinstance(value, sage.Priority):
        return value.name.lower()
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value


def plain_error(error: sage.SageError) -> dict[str, Any]:
    return {
        "error": {
            "reason": error.reason,
            "status": error.status,
            "message": error.message,
            "request_id": error.request_id,
            "violations": plain(error.violations) if isinstance(error, sage.InvalidRequestError) else [],
            "retry_after_s": error.retry_after_s if isinstance(error, sage.TryAgainError) else None,
        }
    }


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """One document; without ``indent`` on one line, at once."""
    click.echo(json.dumps(plain(value), indent=indent, ensure_ascii=False))
