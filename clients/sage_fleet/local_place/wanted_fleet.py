"""What this machine is to run, as a file that commands write and the supervisor's process reads."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from sage_fleet.errors import FleetError
from sage_fleet.specification.fleet import Fleet

Content = TypeVar("Content")

LOCK_TIMEOUT_S = 90.0  # longer than an `apply` holds the lock while the supervisor's process starts
LOCK_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedFleet:
    """A fleet, and how many executors each of its groups is to have."""

    fleet: Fleet
    counts: Mapping[str, int]
    generation: int = 1  # larger after every change
    remove_first: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by group, of its latest number

    def scaled(self, group: str, count: int, remove_first: Sequence[str]) -> WantedFleet:
        """Return the next generation, in which a group has ``count`` executors; ``remove_first`` go if too many run."""
        return WantedFleet(
            fleet=self.fleet,
            counts={**self.counts, group: count},
            generation=self.generation + 1,
            remove_first={**self.remove_first, group: tuple(remove_first)},
        )

    def to_json(self) -> str:
        """Return this as JSON, for ``from_json``."""
        content = {"fleet": self.fleet.model_dump(mode="json"), "counts": dict(self.counts)}
        first = {group: list(names) for group, names in self.remove_first.items()}
        return json.dumps(content | {"generation": self.generation, "remove_first": first})

    @classmethod
    def from_json(cls, text: str) -> WantedFleet:
        """Read what ``to_json`` wrote."""
        content = json.loads(text)
        return cls(
            fleet=Fleet.model_validate(content["fleet"]),
            counts=content["counts"],
            generation=content["generation"],
            remove_first=content.get("remove_first", {}),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the supervisor's process is."""

    supervisor_pid: int
    generation: int  # of what it works on
    settled: bool  # every executor is READY and none drains
    problems: Mapping[str, str] = field(default_factory=dict)  # what keeps an executor from running, by its name

    def to_json(self) -> str:
        """Return this as JSON, for ``from_json``."""
        return json.dumps(
            {
                "supervisor_pid": self.supervisor_pid,
                "generation": self.generation,
                "settled": self.settled,
                "problems": dict(self.problems),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Read what ``to_json`` wrote."""
        return cls(**json.loads(text))


class FleetFiles:
    """The files in a fleet's directory by which commands and the supervisor's process understand one another."""

    def __init__(self, directory: Path) -> None:
        self._wanted = directory / "fleet-wanted.json"
        self._progress = directory / "fleet-progress.json"
        self._lock = directory / "fleet-wanted.lock"

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep other commands from changing what is wanted; the kernel ends the lock with this process.

        Raises FleetError if another command holds the lock for 90 s.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as lock:
            try:
                async with asyncio.timeout(LOCK_TIMEOUT_S):
                    while not _taken(lock):
                        await asyncio.sleep(LOCK_POLL_S)
            except TimeoutError:
                raise FleetError(f"another command has been changing this fleet for {LOCK_TIMEOUT_S:g} s") from None
            yield

    def wanted(self) -> WantedFleet | None:
        """Read what is wanted; None if nothing was applied.  Raises FleetError if it cannot be read."""
        return _read(self._wanted, WantedFleet.from_json)

    def progress(self) -> Progress | None:
        """Read how far the supervisor's process is; None if none has reported.  Raises FleetError."""
        return _read(self._progress, Progress.from_json)

    def want(self, wanted: WantedFleet) -> None:
        """Replace what is wanted.  Raises FleetError where it cannot be written."""
        _replace(self._wanted, wanted.to_json())

    def report(self, progress: Progress) -> None:
        """Replace the progress.  Raises FleetError where it cannot be written."""
        _replace(self._progress, progress.to_json())

    def forget(self) -> None:
        """Remove what is wanted, and the progress."""
        self._wanted.unlink(missing_ok=True)
        self._progress.unlink(missing_ok=True)


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path, parse: Callable[[str], Content]) -> Content | None:
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise FleetError(
            f"cannot read {path}, perhaps of another version: stop what runs there with `sagectl down` ({error})"
        ) from error


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(".new")
    try:
        scratch.touch(mode=0o600)  # the URL of a database may have a password
        scratch.write_text(text)
        scratch.replace(path)
    except OSError as error:
        raise FleetError(f"cannot write {path}: {error.strerror}") from error
