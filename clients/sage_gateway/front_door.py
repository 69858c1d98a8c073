"""The HTTP application: finds the model that a request names, and hands the request to the model's own application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sage_client import SageError
from sage_gateway.asgi import (
    Application,
    BodyTooLarge,
    ClientGone,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    answer_json,
    read_body,
    replaying,
)
from sage_gateway.caller_clients import unusable_token
from sage_gateway.conversation_media import Fetch
from sage_gateway.error_answers import NOT_AVAILABLE, HttpError, Refused, as_json, http_error, invalid, unauthenticated
from sage_gateway.held_answer import HeldAnswer
from sage_gateway.http_call import CURRENT, HttpCall
from sage_gateway.http_headers import HttpHeaders
from sage_gateway.json_body import json_object
from sage_gateway.media_memory import HeldMedia, MediaMemory
from sage_gateway.media_reader import MediaReader
from sage_gateway.model_catalogue import ModelCatalogue, answering
from sage_gateway.model_routes import MODEL_ROUTES, OWN_ROUTES, why_not
from sage_gateway.request_options import OptionError, read_options
from sage_gateway.served_model import ServedModel

BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""Largest body of a request; a prompt of 8 MiB, the scheduler's limit, is longer as JSON."""

BODY_TIMEOUT_S = 60.0
"""Seconds that the body of a request may take to arrive."""

UNBUILT_RETRY_S = 30.0
"""Seconds after which to ask again for a model whose front end cannot be built; its executors have to change."""

TRACE_HEADERS = ("traceparent", "tracestate")


class FrontDoor:
    """Answers all HTTP requests of the gateway.  Paths that are not listed in docs/openai.md do not exist."""

    def __init__(
        self,
        catalogue: ModelCatalogue,
        metrics: Callable[[], tuple[bytes, bytes]],
        version: str,
        check_caller: Callable[[str], Awaitable[None]],
        routes: Mapping[str, Application] | None = None,
        fetch: Fetch | None = None,
        memory: MediaMemory | None = None,
    ) -> None:
        """``metrics``: returns the content type and the text of the metrics page.  ``version``: of vLLM.

        ``check_caller``: raises a SageError if the caller with a token may not list models.  ``routes``: what is
        answered without a model, by the beginning of the path.  ``fetch``: fetches images and audio by their
        addresses; None: nothing is fetched.  ``memory``: bounds what all requests hold of them.
        """
        self._media = MediaReader(self._refusal, fetch)
        self._memory = memory or MediaMemory()
        self._routes = routes or {}
        self._check_caller = check_caller
        self._catalogue = catalogue
        self._metrics = metrics
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI calls it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path in MODEL_ROUTES:
            await self._of_model(scope, receive, send)
        elif (route := self._routes.get(_beginning(path))) is not None:
            await route(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await answer_error(send, _no_route(scope))
        else:
            await self._of_gateway(scope, send)

    async def _of_gateway(self, scope: Scope, send: Send) -> None:
        path = scope["path"]
        if path.startswith("/v1/models") and (refusal := await self._refusal(HttpHeaders(scope["headers"]).token())):
            await answer_error(send, refusal)
        elif path == "/v1/models":
            cards = [card for each in self._catalogue.models() for card in each.cards()]
            await answer_json(send, {"object": "list", "data": cards})
        elif path.startswith("/v1/models/"):
            await self._card(path.removeprefix("/v1/models/"), send)
        elif path in ("/health", "/ping"):
            trouble = self._catalogue.trouble()
            found = {"status": "not ready", "reason": trouble} if trouble else {"status": "ready"}
            await answer_json(send, found, status=503 if trouble else 200)
        elif path == "/version":
            await answer_json(send, {"version": self._version})
        elif path == "/metrics":
            kind, page = self._metrics()
            await answer(send, 200, page, kind=kind)
        else:
            await answer_error(send, _no_route(scope))

    async def _card(self, name: str, send: Send) -> None:
        served = self._catalogue.find(name)
        if served is None:
            await answer_error(send, self._unknown(name))
            return
        await answer_json(send, next(card for card in served.cards() if card["id"] == name))

    async def _of_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            what = f"{scope['method']} is not allowed here"
            error = HttpError(status=405, kind="invalid_request_error", message=what)
            await answer_error(send, error, [(b"allow", b"POST")], path=scope["path"])
            return
        try:
            body = await _body(scope, receive, send)
            if body is not None:
                with self._memory.held() as held:
                    await self._answered(scope, body, receive, send, held)
        except ClientGone:
            return

    async def _answered(self, scope: Scope, body: bytes, receive: Receive, send: Send, held: HeldMedia) -> None:
        """Have the model's application answer a request, or refuse it.  Raises ClientGone."""
        found = await self._prepared(scope["path"], HttpHeaders(scope["headers"]), body, receive, held)
        if isinstance(found, HttpError):
            await answer_error(send, found, path=scope["path"])
            return
        served, call, body = found
        CURRENT.set(call)  # in this task only, which is the request's own
        beginning = HeldAnswer(send, call, scope["path"])
        call.write = beginning.write
        try:
            await served.application(scope, replaying(body, receive), beginning)
        except Exception as error:  # of vLLM's server, or of a stream whose errors it does not expect
            await beginning.fail(error)

    async def _refusal(self, token: str) -> HttpError | None:
        """Return why a caller may not learn which models there are, or tokenize for them; None if it may."""
        if why := unusable_token(token):
            return unauthenticated(why)
        try:
            await self._check_caller(token)
        except SageError as error:
            return http_error(error)
        return None

    async def _prepared(
        self, path: str, headers: HttpHeaders, body: bytes, receive: Receive, held: HeldMedia
    ) -> tuple[ServedModel, HttpCall, bytes] | HttpError:
        """Return a request's model, what its caller asked for, and its body; or why it is refused.

        The body is the one that came, but for what ``MediaReader`` writes into it.  Raises ClientGone.
        """
        token = headers.token()
        if why := unusable_token(token):
            return unauthenticated(why)
        fields = json_object(body)
        if fields is None:
            return invalid("the body is not a JSON object")
        name = fields.get("model", "")
        served = self._catalogue.find(name if isinstance(name, str) else "", path)
        # The scheduler judges requests that reach it.
        if (served is None or path in OWN_ROUTES) and (refusal := await self._refusal(token)):
            return refusal
        if served is None:
            return self._unknown(name, path)
        if why := why_not(served.model, path):
            return invalid(f"model {served.model.name!r} {why}", "model")
        try:
            media, changed = await self._media.read(path, fields, served.model, token, receive, held)
        except Refused as error:
            return error.error
        try:
            options = read_options(headers, fields)
        except OptionError as error:
            return invalid(str(error), error.name)
        trace = {each: headers[each] for each in TRACE_HEADERS if each in headers}
        call = HttpCall(token=token, options=options, media=media, trace=trace)
        return served, call, as_json(fields) if changed else body

    def _unknown(self, name: Any, path: str = "") -> HttpError:
        """Return why there is no model of a name, or which ones a request could have meant that names none."""
        models = self._catalogue.models()
        known = ", ".join(each for served in models for each in served.names)
        if isinstance(name, str) and (why := self._catalogue.why_not(name)):
            return HttpError(
                status=503,
                kind=NOT_AVAILABLE,
                message=f"model {name!r}: {why}",
                param="model",
                code="NO_INSTANCE",
                retry_after_s=UNBUILT_RETRY_S,
            )
        if not models:
            what = self._catalogue.trouble() or "no model is served"
            return HttpError(status=503, kind=NOT_AVAILABLE, message=what, retry_after_s=2.0, code="NO_INSTANCE")
        if not name:
            fitting = ", ".join(each for served in answering(models, path) for each in served.names)
            what = f"name one of the models: {fitting}" if fitting else f"none of the models does that: {known}"
            return invalid(what, "model")
        return HttpError(
            status=404,
            kind="not_found_error",
            message=f"no model {_short(name)}; there are: {known}",
            param="model",
            code="UNKNOWN_MODEL",
        )


async def _body(scope: Scope, receive: Receive, send: Send) -> bytes | None:
    """Return the body of a request; None if it was refused.  Raises ClientGone."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await read_body(receive, BODY_LIMIT_BYTES)
    except TimeoutError:
        what = f"the body did not come within {BODY_TIMEOUT_S:g} s"
        late = HttpError(status=408, kind="timeout_error", message=what)
        await answer_error(send, late, [(b"connection", b"close")], path=scope["path"])
    except BodyTooLarge:
        what = f"the body has more than {BODY_LIMIT_BYTES} bytes"
        large = HttpError(status=413, kind="invalid_request_error", message=what)
        await answer_error(send, large, path=scope["path"])
    return None


def _beginning(path: str) -> str:
    """Return the first two parts of a path, such as "/v1/files" of "/v1/files/one/content"."""
    return "/".join(path.split("/", 3)[:3])


def _short(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _no_route(scope: Scope) -> HttpError:
    what = f"there is no {scope['method']} {scope['path'][:200]}"
    return HttpError(status=404, kind="not_found_error", message=what)


async def _live(receive: Receive, send: Send) -> None:
    """Answer the server's questions about start and shutdown; both are somebody else's."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
