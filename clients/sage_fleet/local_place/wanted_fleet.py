"""What this machine is to run, as a file that commands write and the supervisor's process reads."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sage_fleet.specification.fleet import Fleet


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedFleet:
    """A fleet, and how many executors each of its groups is to have."""

    fleet: Fleet
    counts: Mapping[str, int]
    generation: int = 1  # larger after every change

    def scaled(self, group: str, count: int) -> WantedFleet:
        """Return the next generation, in which a group has ``count`` executors."""
        return WantedFleet(fleet=self.fleet, counts={**self.counts, group: count}, generation=self.generation + 1)

    def to_json(self) -> str:
        """Return this as JSON, for ``from_json``."""
        content = {"fleet": self.fleet.model_dump(mode="json"), "counts": dict(self.counts)}
        return json.dumps(content | {"generation": self.generation})

    @classmethod
    def from_json(cls, text: str) -> WantedFleet:
        """Read what ``to_json`` wrote."""
        content = json.loads(text)
        return cls(
            fleet=Fleet.model_validate(content["fleet"]),
            counts=content["counts"],
            generation=content["generation"],
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from changing what is wanted; the kernel ends the lock with this process."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def wanted(self) -> WantedFleet | None:
        """Read what is wanted; None if nothing was applied."""
        text = _read(self._wanted)
        return None if text is None else WantedFleet.from_json(text)

    def progress(self) -> Progress | None:
        """Read how far the supervisor's process is; None if none has reported."""
        text = _read(self._progress)
        return None if text is None else Progress.from_json(text)

    def want(self, wanted: WantedFleet) -> None:
        """Replace what is wanted."""
        _replace(self._wanted, wanted.to_json())

    def report(self, progress: Progress) -> None:
        """Replace the progress."""
        _replace(self._progress, progress.to_json())

    def forget(self) -> None:
        """Remove what is wanted, and the progress."""
        self._wanted.unlink(missing_ok=True)
        self._progress.unlink(missing_ok=True)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)
