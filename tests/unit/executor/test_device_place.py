"""Places on a device: as many as there are, and free when their holder is gone."""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from executor_svc.runtime.device_place import LockedPlace


def place(directory: Path, holder: str, *, group: str = "gpu-0", places: int = 1) -> LockedPlace:
    return LockedPlace(directory, group, places=places, holder=holder)


def test_one_has_the_place_until_it_gives_it_back(tmp_path: Path) -> None:
    a, b = place(tmp_path, "a"), place(tmp_path, "b")
    assert a.take() == ""
    assert a.take() == "", "it has it already"
    assert b.take() == "no place is free on gpu-0, taken by a"
    a.give_back()
    a.give_back()
    assert b.take() == ""
    assert a.take() == "no place is free on gpu-0, taken by b"


def test_a_device_may_have_several_places_and_groups_do_not_wait_for_each_other(tmp_path: Path) -> None:
    held = [place(tmp_path, name, places=2) for name in ("a", "b")]
    assert [each.take() for each in held] == ["", ""]
    assert place(tmp_path, "c", places=2).take() == "no place is free on gpu-0, taken by a, b"
    assert place(tmp_path, "d", group="gpu-1").take() == ""


def test_the_place_of_a_process_that_is_killed_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    taken = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, taken))
    process.start()
    assert taken.wait(30)
    b = place(tmp_path, "b")
    assert b.take() == "no place is free on gpu-0, taken by killed"
    process.kill()
    process.join()
    assert b.take() == ""


def test_a_folder_that_cannot_be_used_is_refused_and_so_are_links(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        place(tmp_path / "file", "a")
    (tmp_path / "gpu-0.0.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        place(tmp_path, "a")


def test_a_folder_that_was_cleared_meanwhile_is_made_again(tmp_path: Path) -> None:
    a = place(tmp_path / "locks", "a")
    shutil.rmtree(tmp_path / "locks")
    assert a.take() == ""
    assert place(tmp_path / "locks", "b").take() == "no place is free on gpu-0, taken by a"


def test_a_folder_that_cannot_be_used_any_more_is_no_place(tmp_path: Path) -> None:
    a = place(tmp_path / "locks", "a")
    shutil.rmtree(tmp_path / "locks")
    (tmp_path / "locks").touch()
    assert a.take().startswith("the lock files of gpu-0 cannot be used: [Errno")
    (tmp_path / "locks").unlink()
    assert a.take() == ""


def test_the_lock_of_a_file_that_was_replaced_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = place(tmp_path, "a")
    path, lock = tmp_path / "gpu-0.0.lock", fcntl.flock

    def replaced(descriptor: int, operation: int) -> None:
        path.unlink()
        path.touch()
        lock(descriptor, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", replaced)
        assert "was replaced meanwhile" in a.take()
    assert a.take() == ""


def test_the_folder_is_its_user_s(tmp_path: Path) -> None:
    place(tmp_path / "locks", "a")
    assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "locks" / "gpu-0.0.lock").stat().st_mode & 0o777 == 0o600


def _hold(directory: Path, taken: Event) -> None:
    place(directory, "killed").take()
    taken.set()
    threading.Event().wait(60)  # until it is killed
