"""Knows which models can be asked for, and waits for a model to come."""

from __future__ import annotations

import asyncio

from sage_common.clock import Clock
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    NoInstance,
    UnknownModel,
)
from scheduler_svc.domain.scheduler import Scheduler

TOKENIZER_WAIT_S = 5.0
"""How long a request waits for the tokenizer of a model whose instance is READY: it is on its way."""


class ModelDirectory:
    """Keeps the facts of each model, as its latest READY instance reported them, also while that is away.

    Bounded by the models that the scheduler knows.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock, tokenizers: Tokenizers, configured: frozenset[str]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._tokenizers = tokenizers
        self._configured = configured  # named in the configuration: may be waited for before any instance came
        self._facts: dict[str, EngineFacts] = {}  # by model; bounded by the models the registry knows
        self._changed = asyncio.Event()

    def ready(self, model: str, facts: EngineFacts) -> None:
        """Take in the facts of an instance that became READY."""
        self._facts[model] = facts
        self._facts = {name: known for name, known in self._facts.items() if name in self._known()}
        self.changed()

    def changed(self) -> None:
        """Wake the requests that wait: an instance or a tokenizer came."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def resolve(self, model: str, *, wait: bool, until: float) -> tuple[str, EngineFacts]:
        """Return the model's name and facts once its tokenizer is here.

        ``model`` may be empty where there is only one.  ``until`` bounds the wait, in seconds on the control clock.

        Raises UnknownModel, NoInstance (nothing usable and ``wait`` false), DeadlineExceeded, InvalidRequest.
        """
        tokenizer_by = self._clock.now() + TOKENIZER_WAIT_S
        while True:
            name = self._name(model)
            facts = self._facts.get(name)
            if facts is not None and self._tokenizers.has(facts.tokenizer_hash):
                return name, facts
            if wait:
                await self._wait_for_change(until)
            elif facts is not None and self._clock.now() < min(until, tokenizer_by):
                await self._change_or(min(until, tokenizer_by))
            else:
                raise NoInstance(name, self._why(name))

    def _name(self, model: str) -> str:
        """Return the name of the model that is meant; empty where none is given and none is known yet."""
        known = self._known()
        if not known or model in known:
            return model
        if model:
            raise UnknownModel(model, known)
        if len(known) == 1:
            return next(iter(known))
        there_are = ", ".join(sorted(known))
        raise InvalidRequest(
            [FieldViolation(field="spec.model", description=f"name one of the models served: {there_are}")]
        )

    def _known(self) -> frozenset[str]:
        """Return every model with an instance, whatever its state, and those of the configuration."""
        return self._configured.union(self._scheduler.models_with_instances())

    def _why(self, model: str) -> str:
        if model in self._facts:
            return f"its tokenizer has not come within {TOKENIZER_WAIT_S:.0f} s"
        states = self._scheduler.instance_states(model) if self._scheduler.instances(model) else "none has registered"
        return f"no instance has been ready yet: {states}"

    async def _wait_for_change(self, until: float) -> None:
        await self._change_or(until)
        if self._clock.now() >= until:
            raise DeadlineExceeded("while no instance served the model")

    async def _change_or(self, until: float) -> None:
        timer = self._clock.call_at(until, self.changed)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
