"""Takes the tokens of submitted requests out of vLLM's output processor.

vLLM's output handler calls ``process_outputs`` of the processor at every step, with at most 128 requests' outputs at a
time, and looks the method up on the object.  So a method that is put on the object sees each output first.

- An output that brings nothing but tokens goes straight to the step.  For ``AsyncLLM.generate`` vLLM makes objects, and
  wakes a task through a queue, for each token.
- The first and the last output of a request, and those with scheduling events, go through vLLM's own method: it knows
  the statistics, spans and states.  Where it would put its result into a queue, there is a sink.
- Outputs of other requests go through vLLM's own method and to their queues.

A request is known to the hook before the engine core has it, because its first output may come before
``AsyncLLM.add_request`` returns: the processor's ``add_request`` is bound as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from executor_svc.runtime.engine_port import EngineRequest, Step, StepOutput, StepReader


class Submission:
    """A request whose outputs the hook takes.  For vLLM it is the request's queue: the sink."""

    __slots__ = ("_hook", "adding", "begun", "internal_id", "over", "reader", "request", "stats")

    def __init__(self, hook: OutputHook, request: EngineRequest, reader: StepReader) -> None:
        self._hook = hook
        self.request = request
        self.reader = reader
        self.internal_id: str | None = None  # vLLM's own id, once its output processor has the request
        self.stats: Any = None  # vLLM's RequestStateStats
        self.adding: asyncio.Task[None] | None = None  # adds the request to vLLM
        self.begun = False  # its first output came
        self.over = False  # nothing more is taken

    def put(self, output: Any) -> None:
        """Take a RequestOutput, or the exception that ends the request.  Called by vLLM."""
        if not self.over:
            self._hook.take(self, output)
        self.begun = True


class OutputHook:
    """Bound to one AsyncLLM's output processor by ``install``."""

    def __init__(
        self,
        processor: Any,
        *,
        added: Callable[[Submission, Any], None],
        translate: Callable[[Submission, Any], StepOutput],
        deliver: Callable[[Step], None],
    ) -> None:
        """Make a hook.

        ``added`` is told of the EngineCoreRequest of each submission.  ``translate`` makes a port's output of what vLLM
        puts into a sink.  ``deliver`` takes what one call of ``process_outputs`` brought, and what comes between steps:
        aborts and the engine's death.  None of them raises.
        """
        self._processor = processor
        self._added = added
        self._translate = translate
        self._deliver = deliver
        self._submitted: dict[str, Submission] = {}  # by the id that the request was given with, until vLLM has it
        self._taken: dict[str, Submission] = {}  # by vLLM's own id, until its end
        self._step: list[tuple[StepReader, StepOutput]] | None = None  # during ``process_outputs``
        self._add_request = processor.add_request
        self._process_outputs = processor.process_outputs

    def install(self) -> None:
        """Bind the hook's methods on the processor."""
        self._processor.add_request = self.add_request
        self._processor.process_outputs = self.process_outputs

    def remove(self) -> None:
        """Give the processor its own methods back.  Idempotent."""
        self._processor.add_request = self._add_request
        self._processor.process_outputs = self._process_outputs

    # --- for the engine -----------------------------------------------------------------------------------------------

    def expect(self, request: EngineRequest, reader: StepReader) -> Submission:
        """Take the outputs of ``request``, which is added to vLLM next."""
        submission = self._submitted[request.engine_request_id] = Submission(self, request, reader)
        return submission

    def forget(self, submission: Submission) -> None:
        """Take nothing more of a request.  Idempotent."""
        submission.over = True
        if self._submitted.get(submission.request.engine_request_id) is submission:
            del self._submitted[submission.request.engine_request_id]
        if submission.internal_id is not None:
            self._taken.pop(submission.internal_id, None)

    # --- called by vLLM -----------------------------------------------------------------------------------------------

    def add_request(
        self,
        request: Any,
        prompt: Any,
        parent_req: Any = None,
        request_index: int = 0,
        queue: Any = None,
    ) -> None:
        """Add a request to the processor; put the sink in place of a submitted one's queue."""
        submission = self._submitted.pop(request.external_req_id, None)
        if submission is None:
            self._add_request(request, prompt, parent_req, request_index, queue)
            return
        self._add_request(request, prompt, parent_req, request_index, submission)
        submission.internal_id = request.request_id
        submission.stats = self._processor.request_states[request.request_id].stats
        self._taken[request.request_id] = submission
        self._added(submission, request)

    def process_outputs(
        self,
        engine_core_outputs: Sequence[Any],
        engine_core_timestamp: float | None = None,
        iteration_stats: Any = None,
        **further: Any,
    ) -> Any:
        """Take the tokens of submitted requests; leave the rest to vLLM's method."""
        step: list[tuple[StepReader, StepOutput]] = []
        others: list[Any] = []
        taken = self._taken
        tokens = 0
        for output in engine_core_outputs:
            submission = taken.get(output.request_id)
            if (
                submission is None
                or not submission.begun
                or output.finish_reason is not None
                or output.events is not None
            ):
                others.append(output)
                continue
            token_ids = output.new_token_ids
            count = len(token_ids)
            stats = submission.stats
            stats.num_generation_tokens += count
            stats.last_token_ts = engine_core_timestamp
            tokens += count
            step.append((submission.reader, token_ids))
        if iteration_stats is not None:
            iteration_stats.num_generation_tokens += tokens
        self._step = step
        try:
            return self._process_outputs(others, engine_core_timestamp, iteration_stats, **further)
        finally:
            self._step = None
            if step:
                self._deliver(step)

    def take(self, submission: Submission, output: Any) -> None:
        """Add what vLLM put into a sink to the step, or deliver it at once if no step is being processed."""
        item = (submission.reader, self._translate(submission, output))
        if self._step is not None:
            self._step.append(item)
        else:
            self._deliver([item])
