"""The log of a Ray worker process."""

from __future__ import annotations

import os

_STANDARD_OUTPUT = 1


class WorkerLog:
    """Sends a process's output to where Ray keeps this worker's: ``worker-*.out`` in the session's ``logs``."""

    def open_log(self, name: str) -> int:
        """Return a file descriptor for the output of the process of this name, which the caller closes."""
        os.write(_STANDARD_OUTPUT, f"--- {name} starts\n".encode())
        return os.dup(_STANDARD_OUTPUT)
