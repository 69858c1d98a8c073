"""Finds the model that a request names, and waits until the model can be served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from sage_common.clock import Clock
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    NoInstance,
    QueueFull,
    UnknownModel,
)
from scheduler_svc.domain.instance_state import GONE
from scheduler_svc.domain.scheduler import Scheduler

TOKENIZER_WAIT_S = 5.0
"""How long a request waits for the tokenizer of a model whose instance is READY: its executor is sending it."""

Facts = tuple[EngineFacts, ...]
"""The different facts of a model's instances, as ``Scheduler.served_facts`` orders them.  Not empty."""


class ModelDirectory:
    """Keeps the facts of each model's live instances, and those it had last once all of them are gone.

    Bounded by the models that the scheduler knows.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        tokenizers: Tokenizers,
        configured: frozenset[str],
        *,
        waiting_limit: int,
    ) -> None:
        """``waiting_limit``: how many requests may wait at the same time for one model to be served."""
        self._scheduler = scheduler
        self._clock = clock
        self._tokenizers = tokenizers
        self._configured = (
            configured  # named in the configuration: requests may wait for them before any instance registers
        )
        self._waiting_limit = waiting_limit
        self._waiting: Counter[str] = Counter()  # requests in ``resolve`` that wait, by model
        self._facts: dict[str, Facts] = {}  # by model; bounded by the models the registry knows
        self._asked: dict[str, float] = {}  # tokenizers by hash that executors were asked for: when
        self._want_tokenizer: Callable[[str, str], None] = lambda model, tokenizer_hash: None
        self._changed = asyncio.Event()

    def on_missing_tokenizer(self, want: Callable[[str, str], None]) -> None:
        """Call ``want`` with a model and a tokenizer's hash when a request needs a tokenizer that is not here."""
        self._want_tokenizer = want

    def lacks(self, tokenizer_hash: str) -> bool:
        """Return whether a tokenizer is not here, so that its files have to come from an executor."""
        return not self._tokenizers.has(tokenizer_hash)

    def asked(self, tokenizer_hash: str) -> None:
        """Note that an executor was asked for a tokenizer: no other is, until it came or TOKENIZER_WAIT_S passed."""
        self._asked[tokenizer_hash] = self._clock.now()

    @property
    def waiting(self) -> int:
        """How many requests wait for their model to be served."""
        return self._waiting.total()

    @property
    def waiting_by_model(self) -> Mapping[str, int]:
        """How many requests wait for each model to be served; models without one are left out."""
        return dict(self._waiting)

    def ready(self, model: str) -> None:
        """Take the facts of an instance that became READY."""
        self._facts_of(model)
        known = self._known()
        self._facts = {name: facts for name, facts in self._facts.items() if name in known}
        self.changed()

    def changed(self) -> None:
        """Wake the requests that wait, because an instance became READY or a tokenizer arrived."""
        since = self._clock.now() - TOKENIZER_WAIT_S
        self._asked = {h: at for h, at in self._asked.items() if at > since and not self._tokenizers.has(h)}
        self._changed.set()
        self._changed = asyncio.Event()

    def names(self) -> list[str]:
        """Return the models with an instance in any state, and those that the configuration names, sorted."""
        return sorted(self._known())

    def facts(self, model: str) -> Facts | tuple[()]:
        """Return the facts of the model's live instances, else of those it had last; empty if none was READY yet."""
        return self._facts_of(model)

    async def resolve(self, model: str, *, wait: bool, until: float, embeds: bool | None = None) -> tuple[str, Facts]:
        """Return the model's name and the facts of its instances whose tokenizer is here.

        ``model`` may be empty where there is only one, or only one that ``embeds`` or, if that is False, generates.
        ``until`` bounds the wait, in seconds on the control clock.

        Raises UnknownModel, NoInstance (nothing usable and ``wait`` false), QueueFull (too many wait for this model),
        DeadlineExceeded, InvalidRequest.
        """
        tokenizer_by = self._clock.now() + TOKENIZER_WAIT_S
        while True:
            name = self.name(model, embeds)
            facts = self._facts_of(name)
            usable = tuple(each for each in facts if self._tokenizers.has(each.tokenizer_hash))
            if usable:
                return name, usable
            for tokenizer_hash in {each.tokenizer_hash for each in facts}:
                self._ask_again(name, tokenizer_hash)
            if wait:
                with self._counted(name):
                    await self._wait_or_expire(until)
            elif facts and self._clock.now() < min(until, tokenizer_by):
                await self._wait_for_change(min(until, tokenizer_by))
            else:
                raise NoInstance(name, self._why(name))

    def _ask_again(self, name: str, tokenizer_hash: str) -> None:
        """Have an executor asked for a tokenizer that was here before, unless one was asked just now."""
        now = self._clock.now()
        if now - self._asked.get(tokenizer_hash, -TOKENIZER_WAIT_S) >= TOKENIZER_WAIT_S:
            self._asked[tokenizer_hash] = now
            self._want_tokenizer(name, tokenizer_hash)

    def _facts_of(self, name: str) -> Facts:
        """Return the facts of the model's live instances; those of the last ones if none is left."""
        live = self._scheduler.served_facts(name)
        if live:
            self._facts[name] = live
        return self._facts.get(name, ())

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Count a request that waits for a model.  Raises QueueFull if too many do."""
        if self._waiting[name] >= self._waiting_limit:
            wait_s = self._scheduler.expected_wait(name, self._clock.now())
            raise QueueFull(name, self._waiting_limit, wait_s, what=f"the queue of requests that wait for {name!r}")
        self._waiting[name] += 1
        try:
            yield
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]

    def name(self, model: str, embeds: bool | None = None) -> str:
        """Return the name of the model to serve; ``model`` itself while no model is known.

        ``embeds``: what the model has to do if ``model`` is empty, as for ``resolve``; None: anything.
        Raises UnknownModel, and InvalidRequest for an empty name where there are several.
        """
        known = self._known()
        if not known or model in known:
            return model
        if model:
            raise UnknownModel(model, known)
        return self._meant(sorted(known), embeds)

    def _meant(self, known: Sequence[str], embeds: bool | None) -> str:
        """Return the model of a request that names none.  Raises InvalidRequest unless it can be only one."""
        of_kind = [name for name in known if embeds is None or self._embeds(name) in (embeds, None)]
        for only in (known, of_kind):
            if len(only) == 1:
                return only[0]
        does = {None: "are served", True: "embed", False: "generate"}[embeds]
        what = f"name one of the models that {does}: {', '.join(of_kind)}"
        if not of_kind:
            what = f"none of the models that are served {does}s: {', '.join(known)}"
        raise InvalidRequest([FieldViolation(field="spec.model", description=what)])

    def _embeds(self, model: str) -> bool | None:
        """Return whether a model embeds, else it generates; None: it is not known yet, or its instances differ."""
        kinds = {each.role.embeds for each in self._scheduler.instances(model) if each.state not in GONE}
        kinds = kinds or {each.embedding_dimensions > 0 for each in self._facts_of(model)}
        return kinds.pop() if len(kinds) == 1 else None

    def _known(self) -> frozenset[str]:
        """Return the models with an instance in any state, and those that the configuration names."""
        return self._configured.union(self._scheduler.models_with_instances())

    def _why(self, model: str) -> str:
        if model in self._facts:
            return f"its tokenizer has not come within {TOKENIZER_WAIT_S:.0f} s"
        if not self._scheduler.instances(model):
            return "no instance has registered"
        return f"no instance has been ready yet: {self._scheduler.instance_states(model)}"

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
