"""The recording's file: whole lines, bounded in size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler_svc.recording.log_file import LogFile


def begun(path: Path, *, max_bytes: int = 10, files: int = 3) -> LogFile:
    file = LogFile(path, max_bytes=max_bytes, files=files)
    file.begin()
    return file


def test_an_older_file_is_put_aside_and_the_oldest_deleted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in (b"first\n", b"second\n", b"third\n", b"fourth\n"):
        file = begun(path)
        file.append([text])
        file.close()
    found = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert found == {"log": "fourth\n", "log.1": "third\n", "log.2": "second\n"}


def test_an_empty_file_is_not_kept(tmp_path: Path) -> None:
    begun(tmp_path / "log").close()
    begun(tmp_path / "log").close()
    assert [each.name for each in tmp_path.iterdir()] == ["log"]


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    begun(tmp_path / "log").close()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_file_says_when_it_is_full(tmp_path: Path) -> None:
    file = begun(tmp_path / "log")
    assert file.has_space(100)  # a first line that is longer than the bound is written all the same
    file.append([b"12345\n"])
    assert file.has_space(4)
    assert not file.has_space(5)


def test_half_a_line_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    file = begun(path)
    file.append([b"whole\n"])
    write, calls = os.write, iter([3, None])

    def short(descriptor: int, data: memoryview) -> int:
        length = next(calls)
        if length is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:length])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        with pytest.raises(OSError, match="No space left"):
            file.append([b"broken\n"])
    assert path.read_bytes() == b"whole\n"
    file.append([b"next\n"])
    assert path.read_bytes() == b"whole\nnext\n"
