"""The engine core's half: a new request enters vLLM's scheduler as one that was preempted after its history.

vLLM computes the KV of a preempted request again, prompt and output in one go, and then goes on.  So the history is
appended to the request's output before the scheduler sees it; limits, penalties and stops count from the original
prompt.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any

from executor_svc.engine.vllm.engine_threads import widen
from executor_svc.engine.vllm.output_history import history_of

log = logging.getLogger(__name__)


def scheduler_with_history(vllm_config: Any, **arguments: Any) -> Any:
    """Make the scheduler that vLLM would choose by itself, with histories.  ``scheduler_cls`` names this function.

    Its constraints get threads enough, whether there are histories or not.
    """
    widen(arguments.get("structured_output_manager"))
    chosen = _chosen(vllm_config)
    if (difference := _difference(chosen)) is not None:
        log.warning("requests cannot continue from delivered tokens as output: %s", difference)
        return chosen(vllm_config=vllm_config, **arguments)
    made = type(f"{chosen.__name__}WithHistory", (WithHistory, chosen), {})
    return made(vllm_config=vllm_config, **arguments)


def _chosen(vllm_config: Any) -> Any:
    """Return the scheduler class that vLLM chooses where ``scheduler_cls`` names none."""
    config = vllm_config.scheduler_config
    ours, config.scheduler_cls = config.scheduler_cls, None
    try:
        return config.get_scheduler_cls()
    finally:
        config.scheduler_cls = ours


def _difference(scheduler: Any) -> str | None:
    """Return what this vLLM lacks of what ``WithHistory`` relies on; None if it has all of it."""
    from vllm.v1.request import Request
    from vllm.v1.structured_output.request import StructuredOutputRequest

    wanted = (
        (scheduler, ("add_request",)),
        (Request, ("append_output_token_ids", "take_prefill_stats")),
        (StructuredOutputRequest, ("grammar", "is_grammar_ready")),
    )
    missing = [f"{owner.__name__}.{name}" for owner, names in wanted for name in names if not hasattr(owner, name)]
    return f"this vLLM has no {', '.join(missing)}" if missing else None


class WithHistory:
    """Mixed into vLLM's scheduler class: gives new requests their history."""

    requests: dict[str, Any]

    def add_request(self, request: Any) -> None:
        """Add a request; one with a history begins after it."""
        history = history_of(request.sampling_params)
        if history and request.request_id not in self.requests:
            give_history(request, history, getattr(self, "structured_output_manager", None))
        super().add_request(request)  # type: ignore[misc]  # of vLLM's class


def give_history(request: Any, history: list[int], constraints: Any = None) -> None:
    """Make ``history`` a new request's output so far.  Its status stays that of a new request: no worker knows it.

    ``constraints``: vLLM's StructuredOutputManager, which knows where a request's reasoning ends.
    """
    request.append_output_token_ids(history)
    request.prefill_stats = None  # vLLM asserts that the cached tokens it counts lie within the prompt
    structured = request.structured_output_request
    if structured is not None:
        structured.grammar = _advanced(structured._grammar, request, history, constraints)


def _advanced(compiling: Any, request: Any, history: list[int], constraints: Any) -> Future[Any]:
    """Return the grammar's state after ``history``, once ``compiling`` is done.

    A grammar that refuses the history fails like one that does not compile: this request only.
    """
    advanced: Future[Any] = Future()

    def advance(done: Future[Any]) -> None:  # in the thread that compiled
        try:
            grammar = done.result()
            constrained = _constrained(request, history, constraints)
            if constrained and not grammar.accept_tokens(request.request_id, constrained):
                raise ValueError("the grammar refuses what was already delivered")
        except BaseException as error:
            advanced.set_exception(error)
        else:
            advanced.set_result(grammar)

    if not isinstance(compiling, Future):
        compiled: Future[Any] = Future()
        compiled.set_result(compiling)
        compiling = compiled
    compiling.add_done_callback(advance)
    return advanced


def _constrained(request: Any, history: list[int], constraints: Any) -> list[int]:
    """Return the tokens of ``history`` after the reasoning, which the grammar has seen.

    vLLM is told that the reasoning has ended if it has, as it tells itself with the tokens of a step.
    """
    if getattr(constraints, "reasoner_cls", None) is None:
        return history
    start = int(constraints._get_constraint_bounds(request, history, spec_tokens_committed=True).grammar_start)
    if start > len(history):
        return []
    request.structured_output_request.reasoning_ended = True
    return history[start:]
