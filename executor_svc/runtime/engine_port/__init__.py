"""The port between the executor's runtime and an engine: what every engine takes, gives and reports.

Two engines implement it: ``engine.vllm`` and ``engine.simulated``.  Both pass the suite in ``tests/contract/engine``.
An engine takes and returns token ids only.  The runtime makes text of them (``runtime.text``), so that the text and the
stop strings of a resumed request are right with any engine, also where the earlier attempt broke off.

A request's outputs are taken in one of two ways.  ``submit`` gives the outputs of many requests in one list per engine
step, and needs no task, queue or generator for a request: the usual way.  ``generate`` gives one request's outputs, for
those that an engine refuses to ``submit``.

Every method is called, and every callback is made, on one asyncio event loop.  An engine with threads of its own passes
its results to that loop itself.
"""

from __future__ import annotations

from executor_svc.runtime.engine_port.adapters import AdapterSource, LoadedAdapter
from executor_svc.runtime.engine_port.cache_events import BlocksRemoved, BlocksStored, CacheCleared, CacheEvent
from executor_svc.runtime.engine_port.engine import Engine, EngineFactory, EngineState, ProgressListener
from executor_svc.runtime.engine_port.errors import EngineDeadError, EngineError, InvalidRequestError, ModelError
from executor_svc.runtime.engine_port.facts import EngineFacts, TokenizerFiles
from executor_svc.runtime.engine_port.load import EngineLoad, Iteration
from executor_svc.runtime.engine_port.output import (
    EngineOutput,
    FinishReason,
    Step,
    StepOutput,
    StepReader,
    TokenLogprob,
)
from executor_svc.runtime.engine_port.request import EmbeddingOptions, EngineMedia, EngineRequest, JsonValue
from executor_svc.runtime.engine_port.sampling import Sampling, StructuredKind, StructuredOutput

__all__ = [
    "AdapterSource",
    "BlocksRemoved",
    "BlocksStored",
    "CacheCleared",
    "CacheEvent",
    "EmbeddingOptions",
    "Engine",
    "EngineDeadError",
    "EngineError",
    "EngineFactory",
    "EngineFacts",
    "EngineLoad",
    "EngineMedia",
    "EngineOutput",
    "EngineRequest",
    "EngineState",
    "FinishReason",
    "InvalidRequestError",
    "Iteration",
    "JsonValue",
    "LoadedAdapter",
    "ModelError",
    "ProgressListener",
    "Sampling",
    "Step",
    "StepOutput",
    "StepReader",
    "StructuredKind",
    "StructuredOutput",
    "TokenLogprob",
    "TokenizerFiles",
]
