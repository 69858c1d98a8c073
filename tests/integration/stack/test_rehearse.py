"""The rehearsal reads Dockerfiles as Docker would, as far as ours go, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from docker.rehearse import Build, CannotRehearse, instructions
from tests.integration.stack.shipped import DOCKER


def test_continued_lines_are_one_and_comments_are_none() -> None:
    text = '# A comment.\nFROM a AS b\nRUN one \\\n    # why\n    && two\n\nCMD ["x"]\n'
    assert list(instructions(text)) == [("FROM", "a AS b"), ("RUN", "one && two"), ("CMD", '["x"]')]


def test_it_knows_every_instruction_of_our_images() -> None:
    for path in DOCKER.glob("*.Dockerfile"):
        names = {name for name, _ in instructions(path.read_text())}
        assert {name for name in names if not hasattr(Build, f"_{name.lower()}")} == set(), path


def test_it_refuses_an_instruction_that_it_does_not_know(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("ONBUILD RUN true\n")
    with pytest.raises(CannotRehearse, match="ONBUILD"):
        Build(dockerfile, tmp_path / "out", {}, []).run(None)


def test_what_the_build_context_leaves_out_cannot_be_copied(tmp_path: Path) -> None:
    (tmp_path / "out" / "base").mkdir(parents=True)
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM a\nCOPY tests /tests\n")
    with pytest.raises(CannotRehearse, match=r"tests: excluded by \.dockerignore"):
        Build(dockerfile, tmp_path / "out", {}, []).run(None)
