"""The models of the fleet, followed by asking the scheduler again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from sage_client import Model, ModelFiles, SageError
from sage_gateway.asgi import Application
from sage_gateway.served_model import ServedModel

log = logging.getLogger(__name__)

PERIOD_S = 2.0
"""Seconds between two questions."""

FRESH_S = 10.0
"""Seconds without an answer after which the gateway is not healthy."""

FILES_TIMEOUT_S = 60.0
"""Seconds that fetching a model's files may take."""

MODELS_LIMIT = 64
"""Models that are served at the same time; those beyond it, by name, are not."""

BuildApplication = Callable[[ModelFiles], Awaitable[Application]]
EmbeddingApplicationOf = Callable[[Model], Application]


class Scheduler(Protocol):
    """What the catalogue asks; ``AsyncClient`` has it."""

    async def models(self) -> tuple[Model, ...]:
        """Return the models that the fleet serves."""
        ...

    async def get_model_files(self, model: str = "", *, timeout: float | None = None) -> ModelFiles:
        """Return the tokenizer and the configuration of a model."""
        ...


class ModelCatalogue:
    """Keeps an application for each model, built when its first instance became READY.

    An application is built anew when the model's files or limits change.  One stays when all instances of its model are
    gone, so that requests get the scheduler's own words; it goes when the scheduler no longer lists the model.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        build: BuildApplication,
        embedding: EmbeddingApplicationOf,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``build``: for models that generate.  ``embedding``: for those that embed, which needs no files."""
        self._scheduler = scheduler
        self._build = build
        self._embedding = embedding
        self._now = now
        self._served: dict[str, ServedModel] = {}
        self._failed: dict[str, tuple[object, str]] = {}  # by model: the version that could not be built, and why
        self._answered_at: float | None = None
        self._error = "the scheduler has not answered yet"

    def models(self) -> list[ServedModel]:
        """Return the models that are served, by name."""
        return [self._served[name] for name in sorted(self._served)]

    def find(self, name: str) -> ServedModel | None:
        """Return the model that serves a name, which may be an adapter's; the only one for an empty name."""
        if not name:
            return next(iter(self._served.values())) if len(self._served) == 1 else None
        return self._served.get(name) or next((each for each in self._served.values() if name in each.names), None)

    def why_not(self, name: str) -> str:
        """Return why a model of the fleet is not served; empty if nothing is known of it."""
        return self._failed.get(name, (None, ""))[1]

    def trouble(self) -> str:
        """Return why no request can be served now; empty if one can."""
        if self._answered_at is None or self._now() - self._answered_at > FRESH_S:
            return self._error
        if any(each.model.ready for each in self._served.values()):
            return ""
        waiting = [f"{name}: {why}" for name, (_, why) in sorted(self._failed.items())]
        return "; ".join(waiting) or "no model has an instance that is ready"

    async def follow(self, period_s: float = PERIOD_S) -> None:
        """Ask for ever."""
        while True:
            await self.ask()
            await asyncio.sleep(period_s)

    async def ask(self) -> None:
        """Ask the scheduler once, and build what is new."""
        try:
            models = await self._scheduler.models()
        except SageError as error:
            if not self._error:
                log.warning("the scheduler does not answer: %s", error)
            self._error = f"the scheduler does not answer: {error}"
            return
        self._answered_at, self._error = self._now(), "the scheduler has not answered for some time"
        names = {each.name for each in models}
        for gone in (self._served.keys() | self._failed.keys()) - names:
            self._served.pop(gone, None)
            self._failed.pop(gone, None)
        for model in models[:MODELS_LIMIT]:
            await self._update(model)

    async def _update(self, model: Model) -> None:
        if not model.files_hash:
            return
        served = self._served.get(model.name)
        if served is not None and _version(served.model) == _version(model):
            self._served[model.name] = replace(served, model=model)
        elif self._failed.get(model.name, (None, ""))[0] != _version(model):
            await self._serve(model)

    async def _serve(self, model: Model) -> None:
        if model.embeds:
            self._add(model, self._embedding(model))
            return
        try:
            files = await self._scheduler.get_model_files(model.name, timeout=FILES_TIMEOUT_S)
        except SageError as error:
            log.warning("the files of model %s cannot be fetched yet: %s", model.name, error)
            return
        try:
            application = await self._build(files)
        except Exception as error:  # vLLM raises anything for files that it cannot use
            log.exception("model %s cannot be served over HTTP", model.name)
            self._failed[model.name] = (_version(model), f"its front end could not be built: {error}")
            return
        self._add(model, application)

    def _add(self, model: Model, application: Application) -> None:
        self._failed.pop(model.name, None)
        self._served[model.name] = ServedModel(model=model, application=application, created=int(time.time()))
        log.info("model %s is served, with up to %s tokens", model.name, model.max_model_len)


def _version(model: Model) -> tuple[object, ...]:
    return model.files_hash, model.max_model_len, model.dtype, model.adapters, model.embeds
