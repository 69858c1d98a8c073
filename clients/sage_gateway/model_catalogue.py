"""The models of the fleet, followed by asking the scheduler again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from sage_client import Model, ModelFiles, SageError
from sage_gateway.asgi import Application
from sage_gateway.model_routes import why_not
from sage_gateway.served_model import ServedModel

log = logging.getLogger(__name__)

PERIOD_S = 2.0
"""Seconds between two questions."""

FRESH_S = 10.0
"""Seconds without an answer after which the gateway is not healthy."""

KEPT_S = 300.0
"""Seconds that the application of a model is kept that the scheduler lists no more.

A scheduler that was started again lists a model once an executor has come back; building takes seconds.
"""

FILES_TIMEOUT_S = 60.0
"""Seconds that fetching a model's files may take."""

MODELS_LIMIT = 64
"""Models that are served at the same time; those beyond it, by name, are not."""

BuildApplication = Callable[[ModelFiles], Awaitable[Application]]
EmbeddingApplicationOf = Callable[[Model, Application | None, str], Application]


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

    An application is built anew when the model's files, its limits or the media that it takes change.  One stays when
    all instances of its model are gone, so that requests get the scheduler's own words, and for KEPT_S after the
    scheduler lists the model no more.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        build: BuildApplication,
        embedding: EmbeddingApplicationOf,
        *,
        retire: Callable[[Application], None] = lambda application: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``build``: of a model's files.  ``embedding``: for one that embeds, of what was built, or of why it was not.

        ``retire``: told of an application that gets no further requests; some may still run.
        """
        self._scheduler = scheduler
        self._build = build
        self._embedding = embedding
        self._retire = retire
        self._now = now
        self._listed: tuple[Model, ...] = ()  # as the scheduler said last
        self._gone: dict[str, float] = {}  # served models that are listed no more: since when
        self._served: dict[str, ServedModel] = {}
        self._failed: dict[str, tuple[object, str]] = {}  # by model: the version that could not be built, and why
        self._answered_at: float | None = None
        self._error = "the scheduler has not answered yet"
        self._answers = True  # whether the latest question was answered

    def models(self) -> list[ServedModel]:
        """Return the models that are served, by name."""
        return [self._served[name] for name in sorted(self._served) if name not in self._gone]

    def find(self, name: str, path: str = "") -> ServedModel | None:
        """Return the model that serves a name, which may be an adapter's.

        For an empty name that is the only model, or the only one that answers the route ``path``.
        """
        if not name:
            there = self.models() or list(self._served.values())
            return next((only[0] for only in (there, answering(there, path)) if len(only) == 1), None)
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
        """Ask and build for ever, beside each other: while a model is built, the others do not look stale."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_again_and_again(self.ask, period_s))
            group.create_task(_again_and_again(self.build, period_s))

    async def ask(self) -> None:
        """Ask the scheduler once which models there are."""
        try:
            models = await self._scheduler.models()
        except SageError as error:
            if self._answers:
                log.warning("the scheduler does not answer: %s", error)
            self._error, self._answers = f"the scheduler does not answer: {error}", False
            return
        self._answered_at, self._error = self._now(), "the scheduler has not answered for some time"
        self._answers = True
        self._listed = models[:MODELS_LIMIT]
        self._drop({each.name for each in self._listed})
        for model in self._listed:
            self._update(model)

    async def build(self) -> None:
        """Build the applications that are missing."""
        for model in self._listed:
            if model.files_hash and self._is_new(model):
                await self._serve(model)

    def _drop(self, listed: set[str]) -> None:
        """Take note of the models that are listed no more, and let go of those that have not been for KEPT_S."""
        for name in self._failed.keys() - listed:
            del self._failed[name]
        now = self._now()
        self._gone = {name: self._gone.get(name, now) for name in self._served.keys() - listed}
        for name, since in list(self._gone.items()):
            self._update(replace(self._served[name].model, ready=0, instances=0, waiting=0))
            if now - since > KEPT_S:
                del self._gone[name]
                self._retire(self._served.pop(name).application)

    def _update(self, model: Model) -> None:
        """Take the counts of a model.  What its application was built for stays until it is built anew."""
        if (served := self._served.get(model.name)) is not None:
            counts = replace(served.model, ready=model.ready, instances=model.instances, waiting=model.waiting)
            self._served[model.name] = replace(served, model=counts)

    def _is_new(self, model: Model) -> bool:
        """Return whether a model has no application of this version, and building one has not failed."""
        served, version = self._served.get(model.name), _version(model)
        if served is not None and _version(served.model) == version:
            return False
        failed, _ = self._failed.get(model.name, (None, ""))
        return failed != version

    async def _serve(self, model: Model) -> None:
        try:
            files = await self._scheduler.get_model_files(model.name, timeout=FILES_TIMEOUT_S)
        except SageError as error:
            log.warning("the files of model %s cannot be fetched yet: %s", model.name, error)
            return
        try:
            application = await self._build(files)
        except Exception as error:  # vLLM raises anything for files that it cannot use
            if model.embeds:
                log.warning("model %s has embeddings over HTTP, and no more: %s", model.name, error)
                self._add(model, self._embedding(model, None, f"its front end could not be built: {error}"))
                return
            log.exception("model %s cannot be served over HTTP", model.name)
            self._failed[model.name] = (_version(model), f"its front end could not be built: {error}")
            return
        self._add(model, self._embedding(model, application, "") if model.embeds else application)

    def _add(self, model: Model, application: Application) -> None:
        self._failed.pop(model.name, None)
        if (former := self._served.get(model.name)) is not None:
            self._retire(former.application)
        self._served[model.name] = ServedModel(model=model, application=application, created=int(time.time()))
        log.info("model %s is served, with up to %s tokens", model.name, model.max_model_len)


def answering(models: Sequence[ServedModel], path: str) -> list[ServedModel]:
    """Return those of the models that do what a route is for."""
    return [each for each in models if not why_not(each.model, path)]


async def _again_and_again(step: Callable[[], Awaitable[None]], period_s: float) -> None:
    while True:
        await step()
        await asyncio.sleep(period_s)


def _version(model: Model) -> tuple[object, ...]:
    media = model.most_images, model.image_placeholder_token_id, model.audio_input
    return model.files_hash, model.max_model_len, model.dtype, model.adapters, model.embeds, model.classifies, media
