"""Finds the model that a request names, and waits until the model can be served."""

from __future__ import annotations

import asyncio
from math import lcm

from sage_common.clock import Clock
from sage_common.prefix_hashes import prefix_block_tokens
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
"""How long a request waits for the tokenizer of a model whose instance is READY: its executor is sending it."""


MOST_BLOCK_TOKENS = 4_096
"""Longest block that prompts are hashed in to suit engines of different block sizes."""


class ModelDirectory:
    """Keeps the facts of each model, as its latest READY instance reported them, even after that instance is gone.

    Bounded by the models that the scheduler knows.
    """

    def __init__(self, scheduler: Scheduler, clock: Clock, tokenizers: Tokenizers, configured: frozenset[str]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._tokenizers = tokenizers
        self._configured = (
            configured  # named in the configuration: requests may wait for them before any instance registers
        )
        self._facts: dict[str, EngineFacts] = {}  # by model; bounded by the models the registry knows
        self._block_tokens: dict[str, int] = {}  # by model; the same bound
        self._changed = asyncio.Event()

    def ready(self, model: str, facts: EngineFacts) -> None:
        """Keep the facts of an instance that became READY."""
        self._facts[model] = facts
        self._block_tokens[model] = _common(self._block_tokens.get(model, 1), prefix_block_tokens(facts.kv_block_size))
        known = self._known()
        self._facts = {name: value for name, value in self._facts.items() if name in known}
        self._block_tokens = {name: value for name, value in self._block_tokens.items() if name in known}
        self.changed()

    def changed(self) -> None:
        """Wake the requests that wait, because an instance became READY or a tokenizer arrived."""
        self._changed.set()
        self._changed = asyncio.Event()

    def prefix_block_tokens(self, model: str) -> int:
        """Return at multiples of how many tokens prompts are hashed, so that every engine of the model can match them.

        0 for a model that was never ready.
        """
        return self._block_tokens.get(model, 0)

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
                await self._wait_or_expire(until)
            elif facts is not None and self._clock.now() < min(until, tokenizer_by):
                await self._wait_for_change(min(until, tokenizer_by))
            else:
                raise NoInstance(name, self._why(name))

    def _name(self, model: str) -> str:
        """Return the name of the model to serve; ``model`` itself while no model is known."""
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
        """Return the models with an instance in any state, and those that the configuration names."""
        return self._configured.union(self._scheduler.models_with_instances())

    def _why(self, model: str) -> str:
        if model in self._facts:
            return f"its tokenizer has not come within {TOKENIZER_WAIT_S:.0f} s"
        states = self._scheduler.instance_states(model) if self._scheduler.instances(model) else "none has registered"
        return f"no instance has been ready yet: {states}"

    async def _wait_or_expire(self, until: float) -> None:
        """Wait for a change.  Raises DeadlineExceeded at ``until``."""
        await self._wait_for_change(until)
        if self._clock.now() >= until:
            raise DeadlineExceeded("while no instance served the model")

    async def _wait_for_change(self, until: float) -> None:
        """Wait for a change; return at ``until`` even without one."""
        timer = self._clock.call_at(until, self.changed)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()


def _common(one: int, other: int) -> int:
    """Return the least block that is a multiple of two; ``other``, the newer, if that is too long."""
    both = lcm(one, other)
    return both if both <= MOST_BLOCK_TOKENS else other
