"""A stand-in for vLLM's output processor, and for the engine core behind ``AsyncLLM.add_request``.

It does with outputs what the real one does: finds the request's state, counts, puts a RequestOutput into the queue.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Sequence
from typing import Any

from tests.unit.engine.vllm.release import Release

PROCESSOR = "vllm.v1.engine.output_processor:OutputProcessor"
STATE = "vllm.v1.engine.output_processor:RequestState"
OUTPUT = "vllm.v1.engine:EngineCoreOutput"
REQUEST = "vllm.v1.engine:EngineCoreRequest"
STATS = "vllm.v1.metrics.stats:"


class FinishReason:
    """As vLLM has it: ``str`` gives its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return self._name


class RecordedProcessor:
    """Tests set ``script`` to say what happens once a request is added; by default it gets all its tokens."""

    def __init__(self, release: Release, output: Callable[..., Any], record: Callable[[int], None]) -> None:
        """``output`` makes a RequestOutput; ``record`` reports a step's statistics."""
        self._release = release
        self._output = output
        self._record = record
        self.script: Callable[[str, Any], None] = self.count_up
        self.added: list[dict[str, Any]] = []  # calls of AsyncLLM.add_request
        self.sent: list[Any] = []  # EngineCoreRequests for the engine core
        self.core_reads = asyncio.Event()  # clear it to have requests wait on their way to the engine core
        self.core_reads.set()
        self.seen: list[str] = []  # vLLM's ids, one for each output that its own method processed
        self.iteration_stats: list[Any] = []
        self.states: dict[str, Any] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.thing = release.thing(PROCESSOR, request_states=self.states, log_stats=True)
        for name, body in (
            ("add_request", self._add),
            ("process_outputs", self._process),
            ("propagate_error", self._propagate),
            ("abort_requests", lambda request_ids, internal: None),
        ):
            setattr(self.thing, name, release.checked(PROCESSOR, name, body))

    # --- AsyncLLM ---------------------------------------------------------------------------------------------------

    async def add_request(self, **call: Any) -> None:
        """What ``AsyncLLM.add_request`` does."""
        self.added.append(call)
        request = self._release.thing(
            REQUEST,
            request_id=f"{call['request_id']}-0a0b0c0d",
            external_req_id=call["request_id"],
            prompt_token_ids=call["prompt"]["prompt_token_ids"],
            sampling_params=call["params"],
            lora_request=call["lora_request"],
            priority=call["priority"],
        )
        await self.add_made(request, None, None, 0, types.SimpleNamespace(put=lambda output: None))

    async def add_made(self, request: Any, prompt: Any, parent_req: Any, index: int, queue: Any) -> None:
        """What ``AsyncLLM._add_request`` does."""
        self.thing.add_request(request, prompt, parent_req, index, queue)
        if not self.core_reads.is_set():
            await self.core_reads.wait()
        self.sent.append(request)
        self.script(request.request_id, request.sampling_params)

    def abort(self, request_id: str) -> None:
        """What ``AsyncLLM.abort`` does with vLLM's own id."""
        state = self.states.pop(request_id, None)
        if state is not None:
            state.queue.put(self._output([], finish_reason="abort"))

    def step(self, outputs: dict[str, Sequence[int]], *, ended: str | None = None, **more: Any) -> None:
        """One step: new tokens by vLLM's id; with ``ended`` they are the last ones."""
        reason = None if ended is None else FinishReason(ended)
        made = [
            self._release.thing(OUTPUT, request_id=name, new_token_ids=list(ids), finish_reason=reason, **more)
            for name, ids in outputs.items()
        ]
        stats = self._release.thing(f"{STATS}IterationStats", num_generation_tokens=0)
        self.iteration_stats.append(stats)
        self.thing.process_outputs(made, 12.5, stats)

    def count_up(self, internal: str, params: Any) -> None:
        """500, 501, ... up to max_tokens, one for each turn of the event loop."""

        async def run() -> None:
            for index in range(params.max_tokens):
                self.step({internal: [500 + index]}, ended="length" if index == params.max_tokens - 1 else None)
                self._record(index)
                await asyncio.sleep(0)

        self.tasks.append(asyncio.get_running_loop().create_task(run()))

    # --- OutputProcessor --------------------------------------------------------------------------------------------

    def _add(self, request: Any, prompt: Any, parent_req: Any, request_index: int, queue: Any) -> None:
        stats = self._release.thing(f"{STATS}RequestStateStats", num_generation_tokens=0, last_token_ts=0.0)
        self.states[request.request_id] = self._release.thing(STATE, queue=queue, stats=stats)

    def _process(self, engine_core_outputs: list[Any], engine_core_timestamp: float, iteration_stats: Any) -> None:
        for output in engine_core_outputs:
            state = self.states.get(output.request_id)
            if state is None:
                continue
            self.seen.append(output.request_id)
            iteration_stats.num_generation_tokens += len(output.new_token_ids)
            state.stats.num_generation_tokens += len(output.new_token_ids)
            reason = None if output.finish_reason is None else str(output.finish_reason)
            if reason is not None:
                del self.states[output.request_id]
            state.queue.put(self._output(output.new_token_ids, finish_reason=reason, stop_reason=output.stop_reason))

    def _propagate(self, e: Exception) -> None:
        for state in self.states.values():
            state.queue.put(e)
