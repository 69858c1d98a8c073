"""The outputs of submitted requests: collected during a step, given to the runtime in one list."""

from __future__ import annotations

from collections.abc import Callable

from executor_svc.runtime.engine_port import Step, StepOutput, StepReader


def _drop(step: Step) -> None:
    """Take a step's outputs while nobody asked for them."""


class StepOutputs:
    """Collects outputs and gives them to ``callback``."""

    def __init__(self) -> None:
        self.callback: Callable[[Step], None] = _drop
        self._collected: list[tuple[StepReader, StepOutput]] = []

    def add(self, reader: StepReader, output: StepOutput) -> None:
        """Add one request's output to the step."""
        self._collected.append((reader, output))

    def deliver(self) -> None:
        """Give the runtime what was collected, if anything was."""
        if self._collected:
            step, self._collected = self._collected, []
            self.callback(step)
