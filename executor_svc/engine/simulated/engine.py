"""An engine without a model: real batching, KV bookkeeping and streaming; made-up tokens; modelled time.

For demos and tests of everything around an engine.  See ``simulated_tokens`` for which token comes next,
``simulated_batch`` for who is computed when, ``simulated_kv_transfer`` for how KV gets from one to another, ``faults``
for how it can be made to fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from collections.abc import Sequence as Listing

from executor_svc.engine.checks import Limits, refuse_invalid
from executor_svc.engine.settings import ModelSettings, SimulatedSettings
from executor_svc.engine.simulated.batch import Batch, StepPlan
from executor_svc.engine.simulated.faults import Fault, FaultState
from executor_svc.engine.simulated.kv import KvPool, block_keys
from executor_svc.engine.simulated.kv_transfer import KvTransfer
from executor_svc.engine.simulated.sequence import Sequence
from executor_svc.engine.simulated.side_channel import SideChannel, TcpSideChannel
from executor_svc.engine.simulated.structured import SUPPORTED, satisfying_text
from executor_svc.engine.simulated.tokenizer import EOS_ID, tokenizer_files, tokenizer_for
from executor_svc.engine.simulated.tokens import TokenSource, model_salt
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineLoad,
    EngineOutput,
    EngineRequest,
    EngineState,
    Iteration,
    JsonValue,
    ProgressListener,
    StructuredOutput,
)
from sage_common.clock import AsyncioClock, Clock

ENGINE_VERSION = "1"
ITERATIONS_KEPT = 256
_CATCH_UP_S = 0.005  # how far steps may lag behind the model before the lag is forgotten (timers round up to ~1 ms)
_LOAD_TICKS = 10  # progress reports per start state


class SimulatedEngine:
    """Implements ``port.Engine``.  Made by ``SimulatedEngineFactory``."""

    def __init__(
        self,
        model: ModelSettings,
        settings: SimulatedSettings,
        clock: Clock | None = None,
        channel: SideChannel | None = None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._clock = clock or AsyncioClock()
        self._kv = KvPool(capacity_tokens=settings.kv_capacity_tokens, block_size=settings.kv_block_size)
        self._batch = Batch(
            kv=self._kv, max_running=settings.max_running, max_batched_tokens=settings.max_batched_tokens
        )
        self._sequences: dict[str, Sequence] = {}  # not ended, by engine request id
        self._listeners: list[Callable[[], None]] = []
        self._recent: deque[Iteration] = deque(maxlen=ITERATIONS_KEPT)
        self._iterations = 0
        self._arrivals = 0
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._work_arrived = asyncio.Event()
        self._faults = FaultState()
        self._left_while_hung: list[Sequence] = []
        self._death: str | None = None  # why, once it is dead
        self._steps: asyncio.Task[None] | None = None
        self._transfer: KvTransfer | None = None
        if settings.kv_transfer.connector:
            self._transfer = KvTransfer(
                settings=settings.kv_transfer,
                compatibility_key=self._compatibility_key(),
                channel=channel or TcpSideChannel(),
                clock=self._clock,
                batch=self._batch,
                faults=self._faults,
                on_change=self._work_arrived.set,
                corrupted=self._corrupted,
                on_defect=lambda error: self._die(f"KV transfer failed: {error!r}"),
            )
        self._facts = self._describe()
        self._limits = Limits(
            vocab_size=settings.vocab_size,
            max_model_len=settings.max_model_len,
            max_logprobs=settings.max_logprobs,
            adapters=frozenset(settings.adapters),
            kv_connector=self._transfer is not None,
        )

    async def start(self) -> None:
        """Begin to serve, on the running loop.  Raises EngineError if the side channel's port is taken."""
        if self._transfer is not None:
            await self._transfer.listen()
        self._steps = asyncio.get_running_loop().create_task(self._run(), name="simulated-engine-steps")
        self._steps.add_done_callback(self._steps_ended)
        if (fault := self._settings.fault.fault()) is not None:
            self.inject(fault)

    def _steps_ended(self, steps: asyncio.Task[None]) -> None:
        if not steps.cancelled() and (error := steps.exception()) is not None:
            self._die(f"the step loop failed: {error!r}")

    def _describe(self) -> EngineFacts:
        settings = self._settings
        return EngineFacts(
            engine="simulated",
            engine_version=ENGINE_VERSION,
            model=self._model.name,
            revision=None,
            dtype="none",
            vocab_size=settings.vocab_size,
            max_model_len=settings.max_model_len,
            kv_capacity_tokens=self._kv.total * settings.kv_block_size,
            kv_block_size=settings.kv_block_size,
            max_running=settings.max_running,
            max_batched_tokens=settings.max_batched_tokens,
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            data_parallel_size=1,
            gpu_count=0,
            gpu_name=None,
            gpu_memory_bytes=None,
            adapters=settings.adapters,
            supports_priority=True,
            structured_output_kinds=SUPPORTED,
            kv_connector=settings.kv_transfer.connector or None,
            tokenizer=tokenizer_files(settings.vocab_size),
            eos_token_ids=frozenset({EOS_ID}),
            compatibility_key="" if self._transfer is None else self._compatibility_key(),
            kv_lease_s=None if self._transfer is None else settings.kv_transfer.lease_s,
        )

    def _compatibility_key(self) -> str:
        settings = self._settings
        layout = f"{settings.kv_block_size}/{settings.kv_transfer.bytes_per_token}"
        return f"{settings.kv_transfer.connector}/simulated-{ENGINE_VERSION}/{self._model.name}/{layout}"

    # --- requests -------------------------------------------------------------------------------------------

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        sequence = self._admit(request)
        try:
            while True:
                output = await sequence.read()
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            self._leave(sequence)

    def _admit(self, request: EngineRequest) -> Sequence:
        self._refuse_when_dead()
        refuse_invalid(request, self._limits)
        if request.engine_request_id in self._sequences:
            raise EngineError(f"engine request id {request.engine_request_id!r} is in use")
        if self._batch.waiting_count >= self._settings.max_waiting:
            raise EngineError(f"{self._settings.max_waiting} requests wait inside the engine already")
        sequence = self._sequence_of(request)
        if self._transfer is not None and request.kv_transfer_params is not None:
            self._transfer.begin(sequence, request.kv_transfer_params)
        self._sequences[request.engine_request_id] = sequence
        self._prompt_tokens += sequence.prompt_tokens
        self._batch.add(sequence)
        self._work_arrived.set()
        return sequence

    def _sequence_of(self, request: EngineRequest) -> Sequence:
        salt = model_salt(self._model.name, request.adapter)
        self._arrivals += 1
        return Sequence(
            request=request,
            order=self._arrivals,
            tokens=list(request.prompt_token_ids),
            source=self._source(request, salt),
            block_keys=block_keys(request.prompt_token_ids, self._settings.kv_block_size, salt),
            forced=self._forced_tokens(request),
            fails_after=self._faults.next_request_fails_after(),
        )

    def _source(self, request: EngineRequest, salt: int) -> TokenSource:
        return TokenSource(
            vocab_size=self._settings.vocab_size,
            mean_output_tokens=self._settings.mean_output_tokens,
            salt=salt,
            sampling=request.sampling,
        )

    def _corrupted(self, sequence: Sequence) -> None:
        """The KV of its prompt is not that prompt's: what follows is not what should."""
        request = sequence.request
        sequence.source = self._source(request, ~model_salt(self._model.name, request.adapter) & 0xFFFFFFFF)

    def _forced_tokens(self, request: EngineRequest) -> list[int] | None:
        constraint: StructuredOutput | None = request.sampling.structured_output
        if constraint is None:
            return None
        text = satisfying_text(constraint, sum(request.prompt_token_ids))
        return list(tokenizer_for(self._settings.vocab_size).encode(text, add_special_tokens=False).ids)

    def _leave(self, sequence: Sequence) -> None:
        """The reader is gone: abort what has not ended.  A hung engine does not notice."""
        self._sequences.pop(sequence.request.engine_request_id, None)
        self._let_go(sequence)

    def _let_go(self, sequence: Sequence) -> None:
        if sequence.ended or sequence in self._left_while_hung:
            return
        if self._faults.hung:
            self._left_while_hung.append(sequence)
            return
        self._abort(sequence)

    def _abort(self, sequence: Sequence) -> None:
        self._batch.remove(sequence)
        if self._transfer is not None:
            self._transfer.abandon(sequence)
        self._work_arrived.set()  # there is room now

    # --- steps ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        deadline = self._clock.now()
        while True:
            if self._batch.idle:
                deadline = await self._news()
            self._faults.strike(self._generated_tokens)
            self._notice_death()
            await self._faults.running.wait()
            started = self._clock.now()
            preemptions = self._batch.preemptions
            plan = self._batch.plan()
            if not plan.work:
                if self._batch.preemptions == preemptions:
                    deadline = await self._news()  # all wait for KV, or for blocks that are kept for others
                continue
            deadline = max(deadline, started - _CATCH_UP_S) + self._duration(plan)
            await self._clock.sleep(deadline - started)
            await self._faults.running.wait()
            self._finish_step(plan, started)

    async def _news(self) -> float:
        """Wait until something can have changed.  When that was."""
        self._work_arrived.clear()
        await self._work_arrived.wait()
        return self._clock.now()

    def _duration(self, plan: StepPlan) -> float:
        settings = self._settings
        seconds = (
            settings.step_base_s
            + settings.step_per_sequence_s * plan.decode_tokens
            + plan.prefill_tokens / settings.prefill_tokens_per_s
        )
        return seconds * self._faults.slow_factor

    def _finish_step(self, plan: StepPlan, started: float) -> None:
        running = len(self._batch.running)
        used = self._kv.used_tokens
        for sequence, tokens in plan.work.items():
            if not sequence.ended and self._batch.computed(sequence, tokens):
                self._extend(sequence)
        self._iterations += 1
        self._recent.append(
            Iteration(
                index=self._iterations,
                prefill_tokens=plan.prefill_tokens,
                decode_tokens=plan.decode_tokens,
                running=running,
                kv_used_tokens=used,
                elapsed_s=self._clock.now() - started,
            )
        )
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.call_soon(listener)  # after the readers, which were woken before

    def _extend(self, sequence: Sequence) -> None:
        if sequence.fails_after is not None and sequence.emitted >= sequence.fails_after:
            self._batch.remove(sequence)
            sequence.fail(EngineError("injected error"))
            return
        token = sequence.draw()
        top = sequence.request.sampling.logprobs
        logprobs = None if top is None else sequence.source.logprobs(sequence.tokens, token, top)
        sequence.tokens.append(token)
        self._generated_tokens += 1
        reason = sequence.finish_reason(token, self._settings.max_model_len)
        kept = None
        if reason is not None:
            if self._transfer is not None and sequence.request.prefill_only:
                kept = self._transfer.keep(sequence)
            self._batch.remove(sequence)
        sequence.put(token, logprobs, reason, kept)

    # --- faults ---------------------------------------------------------------------------------------------

    def inject(self, fault: Fault) -> None:
        """Have a fault from now on; see ``Fault`` for when exactly it strikes."""
        self._faults.inject(fault, self._generated_tokens)
        self._notice_death()

    def clear_faults(self) -> None:
        """Undo every fault but death; what was left while the engine hung is aborted now."""
        self._faults.clear()
        for sequence in self._left_while_hung:
            self._abort(sequence)
        self._left_while_hung.clear()
        if self._transfer is not None:
            self._transfer.catch_up()

    def _notice_death(self) -> None:
        if self._faults.dead:
            self._die("injected death")

    def _die(self, reason: str) -> None:
        if self._death is not None:
            return
        self._death = reason
        for sequence in self._sequences.values():
            sequence.fail(EngineDeadError(reason))
        if self._steps is not None:
            self._steps.cancel()
        if self._transfer is not None:
            self._transfer.close()

    def _refuse_when_dead(self) -> None:
        if self._death is not None:
            raise EngineDeadError(self._death)

    # --- KV for and from other engines ----------------------------------------------------------------------

    async def stop(self, engine_request_id: str) -> None:
        self._refuse_when_dead()
        sequence = self._sequences.get(engine_request_id)
        if sequence is not None and not sequence.ended:
            self._let_go(sequence)
            sequence.abort()

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        self._refuse_when_dead()
        if self._transfer is None:
            raise EngineError("this engine has no KV connector")
        return await self._transfer.release(kv_transfer_params)

    # --- watching and stopping ------------------------------------------------------------------------------

    def load(self) -> EngineLoad:
        running = len(self._batch.running)
        waiting = self._batch.waiting_count + self._batch.fetching_count
        transfer = self._transfer
        return EngineLoad(
            running=running,
            waiting=waiting,
            unfinished=running + waiting,
            kv_used_tokens=self._kv.used_tokens,
            prefix_queries_tokens=self._batch.prefix_queries_tokens,
            prefix_hits_tokens=self._batch.prefix_hits_tokens,
            prompt_tokens_total=self._prompt_tokens,
            generation_tokens_total=self._generated_tokens,
            iterations=self._iterations,
            known_wait="a KV transfer" if self._batch.fetching_count and not running else None,
            kv_pulls=0 if transfer is None else transfer.pulls,
            kv_pulls_failed=0 if transfer is None else transfer.pulls_failed,
            kv_leases_expired=0 if transfer is None else transfer.kept.expired,
        )

    @property
    def preemptions(self) -> int:
        """Sequences that lost their blocks to others so far."""
        return self._batch.preemptions

    def take_iterations(self) -> Listing[Iteration]:
        taken = list(self._recent)
        self._recent.clear()
        return taken

    def on_step(self, callback: Callable[[], None]) -> None:
        self._listeners.append(callback)

    async def check_health(self) -> None:
        self._refuse_when_dead()

    async def shutdown(self) -> None:
        self._die("the engine was shut down")
        if self._steps is not None:
            await asyncio.wait([self._steps])
        if self._transfer is not None:
            await self._transfer.closed()


class SimulatedEngineFactory:
    """Implements ``port.EngineFactory``; spends ``load_s`` on going through the start states.

    ``channel``: how its engine reaches others; by default over TCP, with those of other processes too.
    """

    def __init__(
        self,
        model: ModelSettings,
        settings: SimulatedSettings,
        clock: Clock | None = None,
        channel: SideChannel | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self._clock = clock or AsyncioClock()
        self._channel = channel

    async def start(self, progress: ProgressListener) -> SimulatedEngine:
        for state in (EngineState.DOWNLOADING, EngineState.LOADING, EngineState.WARMING):
            for tick in range(_LOAD_TICKS):
                progress(state, tick / _LOAD_TICKS, f"{state.value} {self._model.name}")
                await self._clock.sleep(self._settings.load_s / 3 / _LOAD_TICKS)
            progress(state, 1.0, f"{state.value} {self._model.name}")
        engine = SimulatedEngine(self._model, self._settings, self._clock, self._channel)
        await engine.start()
        progress(EngineState.READY, 1.0, f"{self._model.name} is ready")
        return engine
