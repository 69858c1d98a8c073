"""Small trace files that the tests write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_simulator.traces import TraceError

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text)
    return path


def json_lines(*objects: dict[str, Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


def assert_broken(read: Callable[[], object], *, line: int | None, field: str | None) -> str:
    """Check the place that an error names, and return its text."""
    with pytest.raises(TraceError) as caught:
        read()
    assert (caught.value.line, caught.value.field) == (line, field)
    message = str(caught.value)
    assert str(caught.value.path) in message
    assert line is None or f"line {line}: " in message
    assert field is None or f"{field}: " in message
    return message
