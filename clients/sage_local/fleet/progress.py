"""Prints the progress of a fleet's start, one line per change."""

from __future__ import annotations

from collections.abc import Callable

from sage_local.fleet.status import FleetPhase, FleetStatus, InstanceProgress, ProcessStatus

PROGRESS_STEP = 0.1  # share of an instance's start after which its progress is printed again


class ProgressLines:
    """Prints each change of a fleet's status once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: dict[str, object] = {}

    def show(self, status: FleetStatus) -> None:
        """Print what changed since the last call."""
        for process in status.processes:
            self._show_process(process, status.phase)
        # The status that says READY may be the first one with an instance's last step.
        if status.phase in (FleetPhase.STARTING, FleetPhase.READY):
            for instance in status.instances:
                self._show_instance(instance)

    def _show_process(self, process: ProcessStatus, phase: FleetPhase) -> None:
        key = (process.pid, process.state)
        if self._said.get(process.name) == key or process.pid is None:
            return
        self._said[process.name] = key
        if process.state == "running":
            again = f", start number {process.restarts + 1}" if process.restarts else ""
            where = f" on {process.where}" if process.where else ""
            self._say(f"{process.name}: process {process.pid}{where}{again}")
            if process.warning and not process.restarts:
                self._say(f"{process.name}: warning: {process.warning}")
        elif phase is FleetPhase.READY:
            self._say(f"{process.name}: ended with status {process.last_exit}; restarting")

    def _show_instance(self, instance: InstanceProgress) -> None:
        step = None if instance.progress is None else int(instance.progress / PROGRESS_STEP)
        key = (instance.state, step)
        if self._said.get(f"instance {instance.instance_id}") == key:
            return
        self._said[f"instance {instance.instance_id}"] = key
        self._say(f"{instance.instance_id}: {start_words(instance.state, instance.progress, instance.message)}")


def start_words(state: str, progress: float | None, message: str) -> str:
    """Return an instance's state in words: its message if that begins with the state, else both."""
    if state == "ready":
        return state
    share = "" if progress is None else f" {progress:.0%}"
    if message.split(" ", 1)[0] == state:
        return f"{message}{share}"
    return f"{state}{share}: {message}" if message else f"{state}{share}"
