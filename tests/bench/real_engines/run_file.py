"""The runs so far, in a file to which further ones are added."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.bench.real_engines.answer import Answer
from tests.bench.real_engines.load_run import LoadRun


def add(path: Path, run: LoadRun) -> None:
    """Append a run, as one line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def read(path: Path) -> list[LoadRun]:
    """Return the runs in the order of the file; none if there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_run(json.loads(line)) for line in lines]


def _run(found: dict[str, object]) -> LoadRun:
    answers = found.pop("answers")
    assert isinstance(answers, list)
    return LoadRun(answers=[Answer(**each) for each in answers], **found)  # type: ignore[arg-type]
