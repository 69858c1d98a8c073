"""A scheduler that lists models as a test wants it, and applications that answer for them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import Any

from sage_client import Model, ModelFiles, SageError
from sage_gateway.asgi import Application, Receive, Scope, Send, answer_json, read_body
from sage_gateway.http_call import HttpCall, current_call


def model(name: str = "m", **fields: Any) -> Model:
    defaults: dict[str, Any] = {
        "instances": 1,
        "ready": 1,
        "waiting": 0,
        "revisions": (),
        "max_model_len": 100,
        "vocab_size": 10,
        "dtype": "float32",
        "tokenizer_hash": "t",
        "adapters": (),
        "embeds": False,
        "classifies": False,
        "files_hash": f"files of {name}",
    }
    return Model(name=name, **{**defaults, **fields})


class ListedModels:
    """Implements the catalogue's Scheduler, and builds its applications."""

    def __init__(self, *models: Model) -> None:
        self.listed = models
        self.error: SageError | None = None
        self.broken: Exception | None = None  # raised instead of building
        self.built: list[str] = []
        self.embeds_by: dict[str, str] = {}  # models that embed: why vLLM's server has no part in it, if so
        self.calls: list[HttpCall] = []
        self.building: asyncio.Event | None = None  # builds wait for it
        self.began = asyncio.Event()  # a build that waits
        self.asked = asyncio.Event()

    async def models(self) -> tuple[Model, ...]:
        self.asked.set()
        if self.error is not None:
            raise self.error
        return self.listed

    async def get_model_files(self, model: str = "", *, timeout: float | None = None) -> ModelFiles:
        found = next(each for each in self.listed if each.name == model)
        document = {"tokenizer_json": "{}", "chat_template": "T", "special_tokens": {"eos_token": "</s>"}}
        tokenizer = json.dumps(document).encode()
        found = replace(found, tokenizer_hash=hashlib.sha256(tokenizer).hexdigest())
        return ModelFiles(model=found, config_json="{}", generation_config_json="", tokenizer=tokenizer)

    def embedding(self, model: Model, pooling: Application | None, why_not: str) -> Application:
        self.embeds_by[model.name] = why_not
        return self._application(model.name)

    async def build(self, files: ModelFiles) -> Application:
        if self.broken is not None:
            raise self.broken
        if self.building is not None:
            self.began.set()
            await self.building.wait()
        name = files.model.name
        self.built.append(name)
        return self._application(name)

    def _application(self, name: str) -> Application:
        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            self.calls.append(current_call())
            body = await read_body(receive, 1_000_000)
            await answer_json(send, {"model": name, "path": scope["path"], "body": json.loads(body)})

        return application
