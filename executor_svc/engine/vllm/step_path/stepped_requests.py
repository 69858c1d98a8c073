"""Runs requests on vLLM whose outputs come by steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from executor_svc.engine.vllm.errors import VllmErrors
from executor_svc.engine.vllm.outputs import finish, output_of
from executor_svc.engine.vllm.step_path.eager_task import run_eagerly
from executor_svc.engine.vllm.step_path.made_requests import MadeRequests
from executor_svc.engine.vllm.step_path.output_hook import OutputHook, Submission
from executor_svc.engine.vllm.step_path.signatures import made_requests_difference
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineOutput,
    EngineRequest,
    InvalidRequestError,
    Sampling,
    Step,
    StepOutput,
    StepReader,
)

log = logging.getLogger(__name__)


def _drop(step: Step) -> None:
    """Take a step's outputs while nobody asked for them."""


class SteppedRequests:
    """Adds requests to vLLM and translates what the hook brings of them."""

    def __init__(
        self,
        llm: Any,
        errors: VllmErrors,
        *,
        on_first: Callable[[EngineRequest], None],
        on_over: Callable[[EngineRequest], None],
    ) -> None:
        """Take requests' outputs out of ``llm``, an AsyncLLM.

        ``on_first``: told of a request's first output.  ``on_over``: told, once, that a request is over.
        """
        self.callback: Callable[[Step], None] = _drop
        self._llm = llm
        self._errors = errors
        self._on_first = on_first
        self._on_over = on_over
        self._requests: dict[str, Submission] = {}  # by engine request id, until their end
        self._made: MadeRequests | None = MadeRequests()
        if (difference := made_requests_difference(llm)) is not None:
            self.make_none(difference)
        self._hook = OutputHook(
            llm.output_processor, added=self._learn, translate=self._translated, deliver=self._deliver
        )
        self._hook.install()

    def _deliver(self, step: Step) -> None:
        self.callback(step)

    def submit(
        self, request: EngineRequest, reader: StepReader, add: Callable[[], Awaitable[Any]], *, in_task: bool = False
    ) -> None:
        """Run a request, whose id is not in use.  ``add`` adds it to vLLM.

        ``in_task``: run ``add`` in a task from its beginning, because it waits long or with timeouts; else it runs at
        once, and needs a task only if it waits.
        """
        submission = self._requests[request.engine_request_id] = self._hook.expect(request, reader)
        adding, name = self._add(submission, add), f"add-{request.engine_request_id}"
        if in_task:
            submission.adding = asyncio.get_running_loop().create_task(adding, name=name)
        else:
            submission.adding = run_eagerly(adding, name=name)

    def made_like(self, request: EngineRequest, *, lora_request: Any, trace_headers: Any) -> Any | None:
        """Return vLLM's EngineCoreRequest for a request like one that it had before; None if it had none."""
        if self._made is None:
            return None
        return self._made.make(request, lora_request=lora_request, trace_headers=trace_headers)

    def submit_made(self, request: EngineRequest, reader: StepReader, made: Any) -> None:
        """Run a request, whose id is not in use, of which ``made_like`` made ``made``."""
        self.submit(request, reader, partial(self._add_made, made))

    async def _add_made(self, made: Any) -> None:
        """Add an EngineCoreRequest, as ``AsyncLLM.add_request`` does once it has made one."""
        if self._llm.errored:
            raise self._errors.dead()
        await self._llm._add_request(made, None, None, 0, None)  # the hook puts the sink into the queue's place

    def _learn(self, submission: Submission, made: Any) -> None:
        if self._made is not None:
            self._made.learn(submission.request, made)

    async def _add(self, submission: Submission, add: Callable[[], Awaitable[Any]]) -> None:
        try:
            await add()
        except Exception as error:  # not told within ``submit``
            asyncio.get_running_loop().call_soon(self._not_added, submission, error)

    def _not_added(self, submission: Submission, error: Exception) -> None:
        if not submission.over:
            self.callback([(submission.reader, self._failed(submission, error, started=False))])

    def has(self, engine_request_id: str) -> bool:
        """Return whether a request of this id was submitted and has not ended; vLLM may not have it yet."""
        return engine_request_id in self._requests

    async def abort(self, engine_request_id: str) -> None:
        """Abort a request, as ``Engine.abort`` describes."""
        submission = self._requests.get(engine_request_id)
        if submission is None:
            return
        self._end(submission)
        adding = submission.adding
        if adding is not None and not adding.done():
            adding.cancel()
            await asyncio.wait([adding])
        if submission.internal_id is None:
            return
        try:
            await self._llm.abort(submission.internal_id, internal=True)
        except Exception as error:
            raise self._errors.translated(error, Sampling(), started=True) from error

    def end_all(self, reason: str) -> None:
        """End every request with EngineDeadError, because the engine is shut down; add none that waits for that."""
        for submission in list(self._requests.values()):
            self._end(submission)
            if submission.adding is not None:
                submission.adding.cancel()
            self.callback([(submission.reader, EngineDeadError(reason))])

    def remove(self) -> None:
        """Take no outputs any more: vLLM has its own methods back."""
        self._hook.remove()

    def make_none(self, why: str) -> None:
        """Have vLLM make every request from now on, and say so."""
        self._made = None
        log.warning("vLLM checks each request's options anew, a third of a request's cost: %s", why)

    # --- what vLLM puts into a request's sink -------------------------------------------------------------------------

    def _translated(self, submission: Submission, output: Any) -> StepOutput:
        """Return the port's output for a RequestOutput, or its error for an exception or a failed end.

        It raises nothing: vLLM would end every request.
        """
        try:
            if isinstance(output, Exception):
                raise output
            return self._output(submission, output)
        except (EngineError, InvalidRequestError) as error:
            self._end(submission)
            return error
        except Exception as error:
            return self._failed(submission, error, started=submission.begun)

    def _output(self, submission: Submission, output: Any) -> EngineOutput:
        translated = output_of(output)
        if not submission.begun:
            self._on_first(submission.request)
            translated.cached_prompt_tokens = output.num_cached_tokens
        if output.finished:
            self._end(submission)
            finish(translated, output, submission.request)
        return translated

    def _failed(self, submission: Submission, error: Exception, *, started: bool) -> StepOutput:
        self._end(submission)
        if isinstance(error, EngineError | InvalidRequestError):
            return error
        failure = self._errors.translated(error, submission.request.sampling, started=started)
        return failure if isinstance(failure, EngineError | InvalidRequestError) else EngineError(str(failure))

    def _end(self, submission: Submission) -> None:
        self._hook.forget(submission)
        if self._requests.pop(submission.request.engine_request_id, None) is not None:
            self._on_over(submission.request)
