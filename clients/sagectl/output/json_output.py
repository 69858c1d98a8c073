"""Prints the SDK's values as JSON: fields become keys, enum members lower-case words, durations seconds."""

from __future__ import annotations

import json
from typing import Any

import click

import sage_client as sage
from sage_client import plain


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
