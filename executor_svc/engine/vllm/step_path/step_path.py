"""Decides whether an engine's outputs are taken by steps, says so when they are not, and counts either."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from executor_svc.engine.step_requests import OFF, STEPS, UNSUPPORTED, why_not_by_steps
from executor_svc.engine.vllm.errors import VllmErrors, first_line
from executor_svc.engine.vllm.step_path.signatures import difference
from executor_svc.engine.vllm.step_path.stepped_requests import SteppedRequests
from executor_svc.engine.vllm.step_path.trial import Trial
from executor_svc.runtime.engine_port import EngineError, EngineRequest, InvalidRequestError, Step, StepReader

log = logging.getLogger(__name__)

TRIAL_TIMEOUT_S = 60.0  # for a warm-up request whose outputs come by steps

Submit = Callable[[EngineRequest, SteppedRequests, StepReader], None]
"""Submits a request to the requests that run by steps."""


class StepPath:
    """The requests that run by steps, if this vLLM gives outputs so."""

    def __init__(
        self,
        llm: Any,
        errors: VllmErrors,
        *,
        wanted: bool,
        on_first: Callable[[EngineRequest], None],
        on_over: Callable[[EngineRequest], None],
    ) -> None:
        """Take outputs of ``llm``, an AsyncLLM, by steps if it is ``wanted`` and possible.

        ``on_first``: told of a request's first output.  ``on_over``: told, once, that a request is over.
        """
        self.submissions: Counter[str] = Counter()  # by ``STEPS`` or why a request does not run by steps
        self._refusal: str | None = None  # why no request runs by steps
        self._requests: SteppedRequests | None = None
        differs = difference(llm.output_processor) if wanted else None
        if not wanted:
            self._refusal = OFF
        elif differs is not None:
            self._give_up(differs)
        else:
            self._requests = SteppedRequests(llm, errors, on_first=on_first, on_over=on_over)

    def _give_up(self, why: str) -> None:
        self._refusal = UNSUPPORTED
        log.warning("each request is read through AsyncLLM.generate, at twice the CPU per token: %s", why)

    async def try_out(self, request_of: Callable[[str], EngineRequest], submit: Submit) -> None:
        """Run requests by steps; if they do not get their tokens, run none by steps from then on.

        ``request_of`` makes a request with a name; all have the same options.  The first is made by vLLM, the second
        from the first; if only the second fails, vLLM makes every request.
        """
        requests = self._requests
        if requests is None:
            return
        failure = await _failure(request_of("steps"), requests, submit)
        if failure is not None:
            requests.remove()
            self._requests = None
            self._give_up(failure)
        elif (failure := await _failure(request_of("steps-again"), requests, submit)) is not None:
            requests.make_none(failure)

    def requests_for(self, request: EngineRequest) -> SteppedRequests | None:
        """Return what runs ``request`` by steps, None if nothing does.  Counts the answer."""
        refused = why_not_by_steps(request) or self._refusal
        self.submissions[refused or STEPS] += 1
        return None if refused is not None else self._requests

    def on_outputs(self, callback: Callable[[Step], None]) -> None:
        """Have ``callback`` take the outputs, at most 128 at a time."""
        if self._requests is not None:
            self._requests.callback = callback

    def has(self, engine_request_id: str) -> bool:
        """Return whether a request of this id runs by steps, or waits to be added to vLLM."""
        return self._requests is not None and self._requests.has(engine_request_id)

    async def abort(self, engine_request_id: str) -> None:
        """Abort a request, as ``Engine.abort`` describes."""
        if self._requests is not None:
            await self._requests.abort(engine_request_id)

    def end_all(self, reason: str) -> None:
        """End every request with EngineDeadError, because the engine is shut down."""
        if self._requests is not None:
            self._requests.end_all(reason)


async def _failure(request: EngineRequest, requests: SteppedRequests, submit: Submit) -> str | None:
    """Return what went wrong with a request that was run by steps; None if nothing did."""
    trial = Trial()
    requests.callback = trial.take_step
    wanted = request.sampling.max_tokens
    try:
        submit(request, requests, trial)
        tokens = await trial.tokens(TRIAL_TIMEOUT_S)
    except TimeoutError:
        failure = f"a request that was run by steps did not end in {TRIAL_TIMEOUT_S:g} s"
    except (InvalidRequestError, EngineError) as error:
        failure = f"a request that was run by steps failed: {first_line(error)}"
    else:
        if tokens == wanted:
            return None
        failure = f"a request that was run by steps got {tokens} of {wanted} tokens"
    await requests.abort(request.engine_request_id)
    return failure
