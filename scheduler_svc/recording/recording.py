"""The recording as a whole: made from its configuration, started and stopped with the service."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sage_common.clock import Clock
from scheduler_svc.recording.log_file import LogFile
from scheduler_svc.recording.log_lines import HeaderLine
from scheduler_svc.recording.log_writer import LogWriter
from scheduler_svc.recording.recorder import Recorder

log = logging.getLogger(__name__)


class CannotRecord(Exception):
    """The recording's file cannot be written; the message says which and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingSettings:
    """Where to record, and how much."""

    file: Path
    max_bytes: int  # of one file
    files: int  # at most, the one that is written to included
    tenants: bool  # write a hash of each request's tenant


class Recording:
    """Owns the recorder, which takes events, and the writer, which has the file."""

    def __init__(self, settings: RecordingSettings, clock: Clock) -> None:
        self._settings = settings
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        file = LogFile(settings.file, max_bytes=settings.max_bytes, files=settings.files)
        self._writer = LogWriter(file, lambda part: HeaderLine(began=began, software_version=_version(), part=part))
        self.recorder = Recorder(clock, self._writer, tenants=settings.tenants)

    def start(self) -> None:
        """Begin the file.  Raises CannotRecord."""
        try:
            self._writer.start()
        except OSError as error:
            raise CannotRecord(
                f"recording.file: cannot write {str(self._settings.file)!r}: {error.strerror}"
            ) from error
        settings = self._settings
        log.info(
            "recording to %s: no prompts; at most %d files of %d bytes, the oldest is deleted",
            settings.file,
            settings.files,
            settings.max_bytes,
        )

    def counts(self) -> Mapping[str, int]:
        """Count lines since the start by what became of them."""
        return self._writer.counts()

    async def close(self) -> None:
        """Write what is pending and stop, within a few seconds."""
        await self._writer.close()


def _version() -> str:
    try:
        return version("sage-control-plane")
    except PackageNotFoundError:
        return ""
