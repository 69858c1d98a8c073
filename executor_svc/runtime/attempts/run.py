"""Starts an attempt's run on the engine, in the way that the engine runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from executor_svc.runtime.attempts.attempt import Attempt
from executor_svc.runtime.attempts.stepped_run import SteppedRun
from executor_svc.runtime.attempts.streamed_run import StreamedRun
from executor_svc.runtime.engine_port import EngineError, InvalidRequestError, Step
from executor_svc.runtime.messages.outputs import EndCause


class Run(Protocol):
    """An attempt's run on the engine."""

    def interrupt(self, cause: EndCause, message: str) -> None:
        """End the attempt early.  Without effect if the attempt is ending already."""
        ...


def started(
    attempt: Attempt,
    *,
    deadline: float | None,
    on_submitted: Callable[[], None],
    on_over: Callable[[BaseException | None], None],
) -> Run | None:
    """Start to run an attempt.  Return None if there is nothing to run: ``attempt.ending`` says how it ends.

    ``deadline``: on the event loop's clock.  ``on_submitted`` is called once: when the engine has the request, or when
    it is certain that it never will.  ``on_over`` is called once, when the run is over, with what it failed with, if it
    was a defect; not if there is nothing to run.
    """
    leg = attempt.begin()
    if leg is None:
        return None
    stepped = SteppedRun(attempt, deadline=deadline, on_over=on_over)
    try:
        if stepped.start(leg):
            on_submitted()
            return stepped
    except (InvalidRequestError, EngineError) as error:
        attempt.fail(error)
        return None
    streamed = StreamedRun(attempt, deadline=deadline, on_submitted=on_submitted, on_over=on_over)
    streamed.start(leg)
    return streamed


def take_step(step: Step) -> None:
    """Give each reader what the step put out for it.  One step of the engine is one pass of this loop."""
    for reader, output in step:
        reader.take(output)
