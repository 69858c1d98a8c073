"""The simulated engine: real batching, KV bookkeeping and streaming; made-up tokens; modelled time.

It serves demonstrations and tests of everything around an engine.  ``tokens`` chooses the next token, ``steps`` and
``batch`` decide what is computed when, ``kv_transfer`` moves KV between engines, ``faults`` makes the engine fail.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from collections.abc import Sequence as Listing
from dataclasses import replace
from functools import partial

from executor_svc.engine.checks import refuse_invalid
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.adapters import SimulatedAdapters
from executor_svc.engine.simulated.batch import Batch
from executor_svc.engine.simulated.embedding import embedding
from executor_svc.engine.simulated.facts import compatibility_key, engine_facts, request_limits
from executor_svc.engine.simulated.faults import Fault, FaultState
from executor_svc.engine.simulated.kv import KvPool, block_keys
from executor_svc.engine.simulated.kv_transfer import KvTransfer
from executor_svc.engine.simulated.sequence import Sequence
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.side_channel import SideChannel, TcpSideChannel
from executor_svc.engine.simulated.sleep import SimulatedSleep
from executor_svc.engine.simulated.step_outputs import StepOutputs
from executor_svc.engine.simulated.steps import StepLoop
from executor_svc.engine.simulated.structured import satisfying_texts
from executor_svc.engine.simulated.tokenizer import tokenizer_for
from executor_svc.engine.simulated.tokens import TokenSource, is_greedy, model_salt, weights_name
from executor_svc.engine.speed_probe import measured_speed
from executor_svc.engine.step_requests import STEPS, why_not_by_steps
from executor_svc.runtime.engine_port import (
    AdapterSource,
    CacheEvent,
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineLoad,
    EngineOutput,
    EngineRequest,
    Iteration,
    JsonValue,
    LoadedAdapter,
    Step,
    StepReader,
    StructuredOutput,
)
from sage_common.clock import AsyncioClock, Clock


class SimulatedEngine:
    """A simulated engine.  Made by ``SimulatedEngineFactory``; implements ``runtime.engine_port.Engine``."""

    def __init__(
        self,
        model: ModelSettings,
        settings: SimulatedSettings,
        clock: Clock | None = None,
        channel: SideChannel | None = None,
        randomness: random.Random | None = None,
        *,
        embeds: bool = False,
    ) -> None:
        """Make an engine; ``start`` starts it.

        ``clock``: by default the event loop's.  ``channel``: how other engines are reached, by default over TCP.
        ``randomness``: of sampling without a seed, by default the system's.  ``embeds``: it makes vectors, no tokens.
        """
        self._random = randomness or random.SystemRandom()
        self._settings = settings
        self._model = model
        self._clock = clock or AsyncioClock()
        self._kv = KvPool(capacity_tokens=settings.kv_capacity_tokens, block_size=settings.kv_block_size)
        self._batch = Batch(
            kv=self._kv, max_running=settings.max_running, max_batched_tokens=settings.max_batched_tokens
        )
        self._sequences: dict[str, Sequence] = {}  # not ended, by engine request id
        self._arrivals = 0
        self._prompt_tokens = 0
        self._faults = FaultState()
        self._abandoned_while_hung: list[Sequence] = []
        self._death: str | None = None  # why the engine is dead; None while it lives
        self._stepping: asyncio.Task[None] | None = None
        self._outputs = StepOutputs()
        self._submissions: Counter[str] = Counter()
        self._steps = StepLoop(
            settings=settings,
            clock=self._clock,
            batch=self._batch,
            faults=self._faults,
            outputs=self._outputs,
            keep_kv=self._keep_kv,
            notice_death=self._notice_death,
            forget=self._forget,
        )
        self._transfer = self._make_transfer(channel) if settings.kv_transfer.connector else None
        self._facts = engine_facts(model, settings, embeds=embeds)
        self._limits = request_limits(settings, embeds=embeds)
        self._adapters = SimulatedAdapters(settings, self._clock)
        self._sleep = SimulatedSleep(
            settings, self._clock, self._kv, requests=lambda: len(self._sequences), check=self._refuse_when_dead
        )

    def _make_transfer(self, channel: SideChannel | None) -> KvTransfer:
        return KvTransfer(
            settings=self._settings.kv_transfer,
            compatibility_key=compatibility_key(self._model, self._settings),
            channel=channel or TcpSideChannel(),
            clock=self._clock,
            batch=self._batch,
            faults=self._faults,
            on_change=self._steps.wake,
            corrupted=self._corrupted,
            on_defect=lambda error: self._die(f"KV transfer failed: {error!r}"),
        )

    async def start(self, *, measure_speed_s: float = 0.0) -> None:
        """Begin to serve, on the running event loop.

        Raises EngineError if the side channel's port is in use; EngineDeadError if it dies while it is measured.

        ``measure_speed_s``: most seconds in which the engine's speed is measured before; 0: it is not.
        """
        if self._transfer is not None:
            await self._transfer.listen()
        self._stepping = asyncio.get_running_loop().create_task(self._steps.run(), name="simulated-engine-steps")
        self._stepping.add_done_callback(self._stepping_ended)
        fault = self._settings.fault.fault()
        if fault is not None and fault.from_the_start:
            self.inject(fault)
        if measure_speed_s > 0:
            await self._measure_speed(measure_speed_s)
        if fault is not None and not fault.from_the_start:
            self.inject(fault)

    async def _measure_speed(self, limit_s: float) -> None:
        """Measure how fast the engine is, and count its work from then on."""
        self._facts = replace(self._facts, measured=await measured_speed(self, limit_s))
        self._prompt_tokens = 0
        self._steps.forget_work()
        self._batch.forget_work()

    def _stepping_ended(self, stepping: asyncio.Task[None]) -> None:
        if not stepping.cancelled() and (error := stepping.exception()) is not None:
            self._die(f"the step loop failed: {error!r}")

    # --- requests -------------------------------------------------------------------------------------------

    @property
    def facts(self) -> EngineFacts:
        """The fixed properties of this engine."""
        return self._facts

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """Run one request, as ``Engine.generate`` describes."""
        sequence = self._admit(request)
        try:
            while True:
                output = await sequence.read()
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            self._sequences.pop(request.engine_request_id, None)
            self._abandon(sequence)

    def submit(self, request: EngineRequest, reader: StepReader) -> bool:
        """Run one request by steps, as ``Engine.submit`` describes."""
        refused = why_not_by_steps(request)
        self._submissions[refused or STEPS] += 1
        if refused is not None:
            return False
        sequence = self._admit(request)
        sequence.to_step = partial(self._outputs.add, reader)
        return True

    async def abort(self, engine_request_id: str) -> None:
        """Abort a submitted request, as ``Engine.abort`` describes."""
        self._refuse_when_dead()
        sequence = self._sequences.get(engine_request_id)
        if sequence is not None and sequence.to_step is not None:
            sequence.to_step = None
            del self._sequences[engine_request_id]
            self._abandon(sequence)

    def on_outputs(self, callback: Callable[[Step], None]) -> None:
        """Have ``callback`` take the outputs of submitted requests, once for each step."""
        self._outputs.callback = callback

    def _forget(self, sequence: Sequence) -> None:
        """Forget a submitted request that ended.  ``generate`` forgets its own when their last output was read."""
        if sequence.to_step is not None:
            self._sequences.pop(sequence.request.engine_request_id, None)

    async def stop(self, engine_request_id: str) -> None:
        """End a request early, as ``Engine.stop`` describes."""
        self._refuse_when_dead()
        sequence = self._sequences.get(engine_request_id)
        if sequence is not None and not sequence.ended:
            self._abandon(sequence)
            sequence.abort()
            self._forget(sequence)
            self._outputs.deliver()

    def _admit(self, request: EngineRequest) -> Sequence:
        self._refuse_when_dead()
        self._sleep.refuse_when_asleep()
        refuse_invalid(request, self._limits)
        if request.engine_request_id in self._sequences:
            raise EngineError(f"engine request id {request.engine_request_id!r} is in use")
        if self._batch.waiting_count >= self._settings.max_waiting:
            raise EngineError(f"the engine is full: {self._settings.max_waiting} requests wait in it already")
        sequence = self._sequence_of(request)
        if self._transfer is not None and request.kv_transfer_params is not None:
            self._transfer.begin(sequence, request.kv_transfer_params)
        self._sequences[request.engine_request_id] = sequence
        self._prompt_tokens += sequence.prompt_tokens
        self._batch.add(sequence)
        self._steps.wake()
        return sequence

    def _sequence_of(self, request: EngineRequest) -> Sequence:
        salt = model_salt(weights_name(self._model), request.adapter)
        self._arrivals += 1
        return Sequence(
            request=request,
            order=self._arrivals,
            tokens=[*request.prompt_token_ids, *request.output_history],
            source=self._source(request, salt),
            embedding=self._embedding(request, salt),
            block_keys=block_keys(
                request.prompt_token_ids, self._settings.kv_block_size, _prefix_salt(salt, request.sampling.cache_salt)
            ),
            forced=self._forced_tokens(request),
            fails_after=self._faults.next_request_fails_after(),
        )

    def _embedding(self, request: EngineRequest, salt: int) -> bytes | None:
        if request.embedding is None:
            return None
        return embedding(request.prompt_token_ids, salt, self._facts.embedding_dimensions, request.embedding)

    def _source(self, request: EngineRequest, salt: int) -> TokenSource:
        return TokenSource(
            vocab_size=self._settings.vocab_size,
            mean_output_tokens=self._settings.mean_output_tokens,
            salt=salt,
            sampling=request.sampling,
            own_seed=self._random.getrandbits(64),
        )

    def _corrupted(self, sequence: Sequence) -> None:
        """Make a sequence draw wrong tokens, because the KV that was fetched for it is another prompt's."""
        request = sequence.request
        sequence.source = self._source(request, ~model_salt(weights_name(self._model), request.adapter) & 0xFFFFFFFF)

    def _forced_tokens(self, request: EngineRequest) -> list[int] | None:
        sampling = request.sampling
        constraint: StructuredOutput | None = sampling.structured_output
        if constraint is None:
            return None
        pick = sum(request.prompt_token_ids)
        if not is_greedy(sampling):
            pick += self._random.getrandbits(32) if sampling.seed is None else sampling.seed
        history = list(request.output_history)
        for text in satisfying_texts(constraint, pick):
            forced = list(tokenizer_for(self._settings.vocab_size).encode(text, add_special_tokens=False).ids)
            if forced[: len(history)] == history:
                return forced
        raise EngineError("the constraint refuses what was already delivered")

    def _abandon(self, sequence: Sequence) -> None:
        """Abort a sequence whose reader is gone.  A hung engine does so when it runs again."""
        if sequence.ended or sequence in self._abandoned_while_hung:
            return
        if self._faults.hung:
            self._abandoned_while_hung.append(sequence)
            return
        self._abort(sequence)

    def _abort(self, sequence: Sequence) -> None:
        self._batch.remove(sequence)
        if self._transfer is not None:
            self._transfer.abandon(sequence)
        self._steps.wake()

    # --- faults ---------------------------------------------------------------------------------------------

    def inject(self, fault: Fault) -> None:
        """Inject a fault; see ``Fault`` for when it takes effect."""
        self._faults.inject(fault, self._steps.generated_tokens)
        self._notice_death()

    def clear_faults(self) -> None:
        """Undo every fault except death.  Requests whose reader left while the engine hung are aborted now."""
        self._faults.clear()
        for sequence in self._abandoned_while_hung:
            self._abort(sequence)
        self._abandoned_while_hung.clear()
        if self._transfer is not None:
            self._transfer.catch_up()

    def _notice_death(self) -> None:
        if self._faults.dead:
            self._die("injected death")

    def _die(self, reason: str) -> None:
        if self._death is not None:
            return
        self._death = reason
        for sequence in list(self._sequences.values()):
            sequence.fail(EngineDeadError(reason))
            self._forget(sequence)
        self._outputs.deliver()
        if self._stepping is not None:
            self._stepping.cancel()
        if self._transfer is not None:
            self._transfer.close()

    def _refuse_when_dead(self) -> None:
        if self._death is not None:
            raise EngineDeadError(self._death)

    # --- KV for and from other engines ----------------------------------------------------------------------

    def _keep_kv(self, sequence: Sequence) -> dict[str, JsonValue] | None:
        return None if self._transfer is None else self._transfer.keep(sequence)

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        """Tell another engine that nobody will fetch the KV it keeps, as ``Engine.release_kv`` describes."""
        self._refuse_when_dead()
        if self._transfer is None:
            raise EngineError("this engine has no KV connector")
        return await self._transfer.release(kv_transfer_params)

    # --- adapters -------------------------------------------------------------------------------------------

    async def add_adapter(self, source: AdapterSource) -> LoadedAdapter:
        """Take a LoRA adapter, as ``Engine.add_adapter`` describes."""
        self._refuse_when_dead()
        loaded = await self._adapters.add(source)
        self._limits = replace(self._limits, adapters=self._adapters.names)
        return loaded

    async def remove_adapter(self, name: str) -> None:
        """Drop a LoRA adapter, as ``Engine.remove_adapter`` describes."""
        self._refuse_when_dead()
        self._adapters.remove(name)
        self._limits = replace(self._limits, adapters=self._adapters.names)

    # --- sleep ----------------------------------------------------------------------------------------------

    async def sleep(self) -> None:
        """Fall asleep, as ``Engine.sleep`` describes."""
        await self._sleep.sleep()

    async def wake_up(self) -> None:
        """Wake up, as ``Engine.wake_up`` describes."""
        await self._sleep.wake_up()

    # --- watching and stopping ------------------------------------------------------------------------------

    def load(self) -> EngineLoad:
        """Return the current load, also while the engine hangs."""
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
            generation_tokens_total=self._steps.generated_tokens,
            iterations=self._steps.iterations,
            known_wait="a KV transfer" if self._batch.fetching_count and not running else None,
            kv_pulls=0 if transfer is None else transfer.pulls,
            kv_pulls_failed=0 if transfer is None else transfer.pulls_failed,
            kv_leases_expired=0 if transfer is None else transfer.kept.expired,
            submissions=self._submissions,
        )

    @property
    def preemptions(self) -> int:
        """Number of times that a sequence lost its blocks to another one so far."""
        return self._batch.preemptions

    def take_iterations(self) -> Listing[Iteration]:
        """Return the iterations since the last call, oldest first, at most the latest 256."""
        return self._steps.take_iterations()

    def take_cache_events(self) -> Listing[CacheEvent]:
        """Return what changed in the prefix cache since the last call, oldest first."""
        return self._kv.events.take()

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each step, when all its outputs were taken."""
        self._steps.on_step(callback)

    async def check_health(self) -> None:
        """Raise EngineDeadError if the engine is dead."""
        self._refuse_when_dead()

    async def shutdown(self) -> None:
        """End the engine and its tasks.  Idempotent."""
        self._die("the engine was shut down")
        if self._stepping is not None:
            await asyncio.wait([self._stepping])
        if self._transfer is not None:
            await self._transfer.closed()


def _prefix_salt(salt: int, cache_salt: str | None) -> int:
    """Return what the keys of a prompt's blocks begin with: a request's own salt keeps them apart from others'."""
    return salt if cache_salt is None else hash((salt, cache_salt))
