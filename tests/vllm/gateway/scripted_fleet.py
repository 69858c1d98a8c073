"""A model's application in this process, over requests that put out what a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from executor_svc.engine.simulated.facts import config_json
from executor_svc.engine.simulated.tokenizer import tokenizer_files
from executor_svc.runtime.text.text_source import TextSource
from sage_client import ModelFiles, PromptRead, SageError, Sink
from sage_gateway.asgi import Message, Scope
from sage_gateway.caller_clients import CallerClients
from sage_gateway.front_door import FrontDoor
from sage_gateway.model_catalogue import ModelCatalogue
from tests.unit.gateway.fleet_of_models import ListedModels, model
from tests.unit.gateway.scripted_end import end

VOCAB_SIZE = 2_048
LONGEST = 4_096
MODEL = "scripted"


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a request puts out: texts with their numbers of tokens, each on its own, then its end."""

    pieces: Sequence[tuple[str, int]] = ()
    last: tuple[str, int] = ("", 0)  # comes with the end
    cached: int | None = None  # prompt tokens that were cached, as told before the first text; None: not told
    end: Any = field(default_factory=end)  # Finished or SageError


class ScriptedClient:
    """Implements what the gateway uses of ``AsyncClient``."""

    def __init__(self) -> None:
        self.script = Script()
        self.started: list[ScriptedCall] = []

    def start(self, *, sink: Sink, **options: Any) -> ScriptedCall:
        call = ScriptedCall(self.script, sink, options)
        self.started.append(call)
        return call


class ScriptedCall:
    """A request that runs, one piece per turn of the event loop's readers."""

    def __init__(self, script: Script, sink: Sink, options: dict[str, Any]) -> None:
        self.options = options
        self.paused = self.left = False
        self._script = script
        self._sink = sink
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        if self._script.cached is not None:
            self._sink.prompt_read(PromptRead(choice=0, cached_tokens=self._script.cached, logprobs=()))
        for text, tokens in self._script.pieces:
            await self._until_read()
            self._tokens(text, tokens)
        await self._until_read()
        if self._script.last != ("", 0):
            self._tokens(*self._script.last)
        if isinstance(self._script.end, SageError):
            self._sink.failed(self._script.end)
        else:
            self._sink.finished(self._script.end)

    async def _until_read(self) -> None:
        """Wait until the reader must have taken what came."""
        for _ in range(30):
            await asyncio.sleep(0)
        while self.paused:
            await asyncio.sleep(0)

    def _tokens(self, text: str, tokens: int) -> None:
        if not self.left:
            self._sink.tokens(0, 0, [300] * tokens, 0, text, ())

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def leave(self) -> None:
        self.left = True
        self._running.cancel()


class ScriptedClients:
    """Implements what is used of ``CallerClients``: everybody has the same client."""

    def __init__(self) -> None:
        self.client = ScriptedClient()

    @contextmanager
    def of(self, token: str) -> Iterator[ScriptedClient]:
        yield self.client


class ScriptedGateway:
    """The whole gateway but for its HTTP server."""

    def __init__(self, door: FrontDoor, client: ScriptedClient) -> None:
        self._door = door
        self.client = client

    async def body(self, path: str, fields: dict[str, Any], script: Script) -> bytes:
        """Return the body of an answer, whose status is 200."""
        self.client.script = script
        sent = Sent()
        await self._door(scope(path), Received(fields), sent)
        assert sent.status == 200, sent.body
        return sent.body

    async def answer(self, path: str, fields: dict[str, Any], received: Received, sent: Sent) -> None:
        """Answer one request."""
        await self._door(scope(path), received, sent)


class Received:
    """A request's body, and the connection that closes when ``gone`` is set."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.gone = asyncio.Event()
        self._body: bytes | None = json.dumps(fields).encode()

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}


class Sent:
    """What was answered.  While ``open`` is not set, the client takes nothing beyond the first part."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.parts = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if self.parts:
            await self.open.wait()
        self.parts += 1
        self.body += message.get("body", b"")


def scope(path: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


async def scripted_gateway(directory: Path, arguments: Sequence[str] = ()) -> ScriptedGateway:
    """Build vLLM's server for a model and put the gateway's front door before it."""
    from sage_gateway.vllm_server.model_application import ApplicationBuilder

    clients = ScriptedClients()
    builder = ApplicationBuilder(cast(CallerClients, clients), directory, arguments)
    source = TextSource(tokenizer_files(VOCAB_SIZE))
    document = b"".join(chunk.data for chunk in source.chunks())
    listed = ListedModels(model(MODEL, vocab_size=VOCAB_SIZE, max_model_len=LONGEST, tokenizer_hash=source.hash))
    files = ModelFiles(
        model=listed.listed[0],
        config_json=json.dumps(config_json(VOCAB_SIZE, LONGEST)),
        generation_config_json="",
        tokenizer=document,
    )
    listed.get_model_files = lambda model="", *, timeout=None: _soon(files)  # type: ignore[method-assign]
    catalogue = ModelCatalogue(listed, builder.build, listed.embedding)
    await catalogue.ask()
    await catalogue.build()
    assert not catalogue.why_not(MODEL), catalogue.why_not(MODEL)

    async def anybody(token: str) -> None: ...

    return ScriptedGateway(FrontDoor(catalogue, lambda: (b"", b""), "0", anybody), clients.client)


async def _soon(files: ModelFiles) -> ModelFiles:
    return files
