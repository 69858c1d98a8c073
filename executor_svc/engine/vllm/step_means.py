"""Engine steps whose times are only right together, as their mean."""

from __future__ import annotations

from executor_svc.runtime.engine_port import Iteration

TOGETHER = 8
"""Steps of an engine that schedules a step while the one before still runs."""


class StepMeans:
    """Takes steps one by one and gives their means, ``together`` at a time.

    An engine with vLLM's asynchronous scheduling sends the next step to the GPU before it takes the output of the one
    that runs.  To send a prompt takes long: the output of the step before it comes late, that step looks slow, and the
    prompt looks fast.  Over some steps in a row this evens out, and a time that is linear in what a step computes is so
    in the means, too.
    """

    def __init__(self) -> None:
        self.together = 1  # 1: the engine's steps run one after the other
        self._steps: list[Iteration] = []

    def clear(self) -> None:
        """Forget the steps that no mean was told of yet."""
        self._steps = []

    def add(self, step: Iteration) -> Iteration | None:
        """Take the next step.  Returns the mean of the latest, once there are enough."""
        self._steps.append(step)
        count = len(self._steps)
        if count < self.together:
            return None
        steps, self._steps = self._steps, []
        return Iteration(
            index=step.index,
            prefill_tokens=round(sum(each.prefill_tokens for each in steps) / count),
            decode_tokens=round(sum(each.decode_tokens for each in steps) / count),
            running=round(sum(each.running for each in steps) / count),
            kv_used_tokens=round(sum(each.kv_used_tokens for each in steps) / count),
            elapsed_s=sum(each.elapsed_s for each in steps) / count,
            steps=count,
        )
