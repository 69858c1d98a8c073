"""What a scheduler finds in its state directory, and who else may use it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from scheduler_svc.storage.state_directory import (
    EPOCH_FILE,
    INSTANCES_FILE,
    KEY_FILE,
    StateDirectory,
    UnusableState,
)


async def test_what_one_scheduler_leaves_the_next_one_finds(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path / "state")
    first.keep_instances(["b", "a"])
    await first.close()
    second = StateDirectory(tmp_path / "state")
    assert second.instances == {"a", "b"}
    assert second.secret == first.secret
    assert second.epoch > first.epoch
    await second.close()


async def test_two_schedulers_cannot_use_one_directory(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    with pytest.raises(UnusableState, match=r"another scheduler uses it \(process \d+\)"):
        StateDirectory(tmp_path)
    await first.close()
    await StateDirectory(tmp_path).close()


async def test_epochs_rise_although_the_clock_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = StateDirectory(tmp_path)
    await first.close()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000)
    second = StateDirectory(tmp_path)
    assert second.epoch == first.epoch + 1
    await second.close()
    assert time.time_ns() == 1_000


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (INSTANCES_FILE, b"[1"),
        (INSTANCES_FILE, b"{}"),
        (INSTANCES_FILE, b"\xff"),
        (KEY_FILE, b"short"),
        (EPOCH_FILE, b"soon"),
        (EPOCH_FILE, b"9" * 40),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    await StateDirectory(tmp_path).close()
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UnusableState, match=f"^state_dir {tmp_path}: {file}"):
        StateDirectory(tmp_path)
    (tmp_path / file).unlink()
    await StateDirectory(tmp_path).close()
