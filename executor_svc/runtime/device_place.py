"""A place on a device whose memory does not hold all the engines of its group at the same time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

HOLDER_BYTES = 256
"""Most bytes that are read of the name of who has a place."""


class DevicePlace(Protocol):
    """The port to the places of a device group; an engine has one from its start, or its wake, until it sleeps."""

    def take(self) -> str:
        """Take a place; return in words why there is none now, empty if this engine has one.  Returns at once."""
        ...

    def give_back(self) -> None:
        """Free the place, because the engine has no memory of the device any more."""
        ...


class LockedPlace:
    """Implements DevicePlace with a lock file per place.  The kernel frees the place of a process that is gone."""

    def __init__(self, directory: Path, group: str, *, places: int, holder: str) -> None:
        """Make the directory, for this user only, unless it is there.  Raises OSError where it cannot be used.

        ``directory`` is the same for all executors of the group.  ``holder`` names this executor to the others.
        """
        self._directory = directory
        self._files = [directory / f"{group}.{number}.lock" for number in range(places)]
        self._group = group
        self._holder = holder
        self._descriptor: int | None = None  # of the file that this executor has locked
        for path in self._files:
            os.close(self._open(path))

    def take(self) -> str:
        """Lock the first file that is free, as ``DevicePlace.take`` describes."""
        if self._descriptor is not None:
            return ""
        try:
            return self._lock_one()
        except OSError as error:
            return f"the lock files of {self._group} cannot be used: {error}"

    def _lock_one(self) -> str:
        holders: list[str] = []
        for path in self._files:
            if holder := self._lock(path):
                holders.append(holder)
            else:
                return ""
        return f"no place is free on {self._group}, taken by {', '.join(holders)}"

    def _lock(self, path: Path) -> str:
        """Lock a file; return who has it, empty if it is locked now."""
        descriptor = self._open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                raise OSError(f"{path} was replaced meanwhile")  # the others lock the new one
            os.ftruncate(descriptor, 0)
            os.write(descriptor, self._holder.encode())
            self._descriptor = descriptor
        except BlockingIOError:
            return os.read(descriptor, HOLDER_BYTES).decode(errors="replace").strip() or "another executor"
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)
        return ""

    def give_back(self) -> None:
        """Free the file, as ``DevicePlace.give_back`` describes."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile has it open, too
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, path: Path) -> int:
        """Open a lock file, which is no link to another one.  Raises OSError.

        What clears folders for temporary files may have taken the directory while no place was held.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
