"""A fleet that a file describes: a fleet file, or a recording that it is fitted to."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sage_simulator.calibration.calibration import CalibrationError, calibrate
from sage_simulator.fleet_file import FleetFile, read_fleet
from sage_simulator.traces.recording.log_reader import is_log, read_log


@lru_cache(maxsize=4)  # a command asks several times, and a recording takes seconds to read
def described_fleet(path: Path) -> FleetFile:
    """Return the fleet of a file.  Raises FleetSpecError, TraceError and CalibrationError, all ValueErrors; OSError."""
    if not is_log(path):
        return read_fleet(path)
    log = read_log(path)
    try:
        return calibrate(log).fleet
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from None
