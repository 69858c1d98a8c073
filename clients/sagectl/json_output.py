"""Prints the SDK's values as JSON: fields become keys, enum members lower-case words, durations seconds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import click

import sage_client as sage


def plain(value: Any) -> Any:
    """Return ``value`` as dict, list, str, number, bool or None; a moment as ISO 8601."""
    if isinstance(value, sage.Priority):
        return value.name.lower()
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value


def plain_error(error: sage.SageError) -> dict[str, Any]:
    """Return an error as the object that --json prints."""
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
    """Print one JSON document to stdout; without ``indent`` on one line."""
    click.echo(json.dumps(plain(value), indent=indent, ensure_ascii=False))
