"""What a scheduler finds in its state directory, and who else may use it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.storage.state_directory import (
    EPOCH_FILE,
    INSTANCES_FILE,
    KEY_FILE,
    StateDirectory,
    UnusableState,
)


async def test_what_one_scheduler_leaves_the_next_one_finds(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path / "state")
    left = {"b": EarlierInstance(model="m"), "a": EarlierInstance(holds=frozenset({RequestKey("t", "r")}))}
    first.keep_instances(left)
    await first.close()
    second = StateDirectory(tmp_path / "state")
    assert second.instances == left
    assert second.secret == first.secret
    assert second.epoch > first.epoch
    await second.close()


async def test_what_instances_hold_counts_only_for_the_start_after_the_one_that_wrote_it(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path)
    first.keep_instances({"a": EarlierInstance(model="m", holds=frozenset())})
    await first.close()
    await StateDirectory(tmp_path).close()  # it may have placed requests, and wrote nothing down
    third = StateDirectory(tmp_path)
    assert third.instances == {"a": EarlierInstance(model="m")}
    await third.close()


async def test_a_plain_list_of_instances_is_read(tmp_path: Path) -> None:
    (tmp_path / INSTANCES_FILE).write_bytes(b'["a"]')
    state = StateDirectory(tmp_path)
    assert state.instances == {"a": EarlierInstance()}
    await state.close()


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
        (INSTANCES_FILE, b"[1, 2]"),
        (INSTANCES_FILE, b'{"instances": {"a": 1}}'),
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
