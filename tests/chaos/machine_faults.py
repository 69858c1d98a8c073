"""Faults of the machine that a scheduler runs on: a full disk under its journal, and a wall clock that is set."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import random
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import Kinds

DISK_BYTES = 16 * 2**20
PIECE_BYTES = 64 * 1024
FULL_S = (0.5, 4.0)
STEPS_S = (-240.0, -30.0, 30.0, 240.0)
"""Seconds off the machine's clock.  Requests that come back with a deadline lose what the clock is set forward by."""
LIBRARY = "/usr/lib/*/faketime/libfaketime.so.1"


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """Mount a disk of 16 MiB; None where this process may not."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass
class SmallDisk:
    """A disk that can be filled."""

    folder: Path

    def faults(self, dice: random.Random) -> Kinds:
        """Return the fault of a disk that is full for a while."""

        async def fill() -> None:
            self.fill()
            await asyncio.sleep(dice.uniform(*FULL_S))
            self.free()

        return {"disk full": (2, fill)}

    def fill(self) -> None:
        """Take all the room that is left."""
        with contextlib.suppress(OSError), open(self.folder / "filler", "ab", buffering=0) as filler:
            while True:
                filler.write(bytes(PIECE_BYTES))

    def free(self) -> None:
        """Give the room back."""
        (self.folder / "filler").unlink(missing_ok=True)


@dataclass
class SettableClock:
    """The wall clock of one process, by Debian's package `faketime`; its monotonic clock goes on."""

    file: Path
    library: str

    @classmethod
    def find(cls, file: Path) -> SettableClock | None:
        """Return one that is right so far; None where `faketime` is not installed."""
        found = glob.glob(LIBRARY)
        if not found:
            return None
        clock = cls(file, found[0])
        clock.set(0.0)
        return clock

    @property
    def environment(self) -> Mapping[str, str]:
        """What the process has to be started with."""
        return {
            "LD_PRELOAD": self.library,
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset_s: float) -> None:
        """Set it ``offset_s`` seconds off the machine's; the process sees it within a second."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{offset_s:+.0f}")
        new.replace(self.file)

    def faults(self, dice: random.Random) -> Kinds:
        """Return the fault of a clock that is set."""

        async def step() -> None:
            self.set(dice.choice(STEPS_S))

        return {"clock set": (2, step)}
