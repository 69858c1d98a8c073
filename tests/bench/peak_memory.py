"""The most memory that another process took since it was last asked (Linux)."""

from __future__ import annotations

from pathlib import Path

from tests.bench.child import Child

RESET_PEAK = "5"  # what proc(5) says to write into clear_refs


class PeakMemory:
    """The peak of a process' resident memory over what it had when this was made, in MiB."""

    def __init__(self, process: Child) -> None:
        self._folder = Path(f"/proc/{process.pid}")
        self._start = self._mib("VmRSS")

    def begin(self) -> None:
        """Forget the peak so far."""
        (self._folder / "clear_refs").write_text(RESET_PEAK)

    def over_start(self) -> float:
        """Return the peak since ``begin``, less what the process had at the start."""
        return self._mib("VmHWM") - self._start

    def _mib(self, field: str) -> float:
        status = (self._folder / "status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024
