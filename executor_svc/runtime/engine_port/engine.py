"""What every engine does, from its start to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from executor_svc.runtime.engine_port.adapters import AdapterSource, LoadedAdapter
from executor_svc.runtime.engine_port.cache_events import CacheEvent
from executor_svc.runtime.engine_port.facts import EngineFacts
from executor_svc.runtime.engine_port.load import EngineLoad, Iteration
from executor_svc.runtime.engine_port.output import EngineOutput, Step, StepReader
from executor_svc.runtime.engine_port.request import EngineRequest, JsonValue


class EngineState(Enum):
    """The engine's stage on its way to serving.  A normal start goes through them in order, up to READY."""

    DOWNLOADING = "downloading"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"


class Engine(Protocol):
    """A started engine.  All methods are called on the event loop that started it."""

    @property
    def facts(self) -> EngineFacts:
        """The fixed properties of this engine."""
        ...

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """Run any request; the last output carries ``finish_reason``.

        Closing the generator aborts the request in the engine and frees its KV cache.  Raises, from the first or any
        later ``anext``: InvalidRequestError, EngineError, EngineDeadError.
        """
        ...

    def submit(self, request: EngineRequest, reader: StepReader) -> bool:
        """Run one request whose outputs come in the lists that ``on_outputs`` asks for, each with ``reader``.

        Return at once: True, or False if this engine runs such a request by ``generate`` only.  Raises
        InvalidRequestError, EngineError, EngineDeadError; an error that is found later comes as the request's output.
        """
        ...

    async def abort(self, engine_request_id: str) -> None:
        """Abort a submitted request and free its KV cache; from the call on, nothing more of it comes.

        Return when the engine was told.  A request that is over or unknown is ignored.  Raises EngineDeadError.
        """
        ...

    def on_outputs(self, callback: Callable[[Step], None]) -> None:
        """Have ``callback`` take the outputs of submitted requests.  It raises nothing; the latest one counts."""
        ...

    async def stop(self, engine_request_id: str) -> None:
        """End a request of ``generate`` early; its stream then ends by itself.

        The stream ends with ABORTED, or with its normal end if the request was over already.  Closing the generator
        instead would lose the last output, which for a finished prefill says how to fetch or release its KV.  An
        unknown request is ignored.  Raises EngineDeadError.
        """
        ...

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        """Tell the engine that keeps a prompt's KV that nobody will fetch it.

        The parameters are those of the prefill's last output.  Return True if the message reached that engine, as far
        as can be known; False if that engine keeps the KV until the lease ends.  Raises EngineError for parameters that
        make no sense, EngineDeadError.
        """
        ...

    async def add_adapter(self, source: AdapterSource) -> LoadedAdapter:
        """Load a LoRA adapter, so that requests may name it; the one before it has been added or refused.

        Files are read in a thread.  Raises ModelError for one that cannot be loaded, and says why: its files, its rank,
        the engine's slots, or a name that is taken; EngineError, EngineDeadError.
        """
        ...

    async def remove_adapter(self, name: str) -> None:
        """Unload an adapter that ``add_adapter`` loaded and that no request uses.  An unknown one is ignored.

        Raises EngineError, EngineDeadError.
        """
        ...

    async def sleep(self) -> None:
        """Free the device's memory: the weights go to the host's memory, all KV and the prefix cache are dropped.

        Until ``wake_up`` returns, every request is refused with EngineError.  An engine that sleeps stays as it is.
        Raises EngineError, and changes nothing, for an engine that cannot sleep or that has a request; EngineDeadError
        for every other failure: then nobody knows what the device holds.
        """
        ...

    async def wake_up(self) -> None:
        """Bring the weights back to the device, with an empty KV cache.  An engine that is awake stays as it is.

        Raises EngineError for an engine that cannot sleep, EngineDeadError for every other failure, such as a device
        without the memory.
        """
        ...

    def load(self) -> EngineLoad:
        """Return the current load.  Cheap, because it is called for every heartbeat."""
        ...

    def take_iterations(self) -> Sequence[Iteration]:
        """Return the iterations since the last call, oldest first.

        Only the latest 256 are kept: the scheduler's predictor needs a sample, not every iteration.
        """
        ...

    def take_cache_events(self) -> Sequence[CacheEvent]:
        """Return what changed in the prefix cache since the last call, oldest first.

        Empty if the engine does not tell (``EngineFacts.reports_cache``).  Bounded: where too much happened between two
        calls, ``CacheCleared`` stands for what was lost.
        """
        ...

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the event loop after each step, when all its outputs were taken.

        The runtime then sends the step's outputs as one frame.
        """
        ...

    async def check_health(self) -> None:
        """Raise EngineDeadError if the engine is gone."""
        ...

    async def shutdown(self) -> None:
        """End the engine and every process it started.  Idempotent."""
        ...


ProgressListener = Callable[[EngineState, float | None, str], None]  # state, fraction in [0, 1] if known, message


class EngineFactory(Protocol):
    """Starts one engine."""

    async def start(self, progress: ProgressListener) -> Engine:
        """Start the engine and return it when it serves.

        ``progress`` is called at each stage.  Raises ModelError, or EngineError with a sentence an operator can act on.
        """
        ...
