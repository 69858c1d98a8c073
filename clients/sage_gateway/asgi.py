"""The types of ASGI, the interface between an HTTP server and an application, and complete answers through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, TypeAlias, TypeVar

from sage_gateway.error_answers import HttpError, as_json

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

T = TypeVar("T")

JSON = b"application/json"


class ClientGone(Exception):
    """The HTTP client closed the connection before its request was complete."""


class BodyTooLarge(Exception):
    """The body of a request has more bytes than are taken."""


async def answer(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = (), *, kind: bytes = JSON
) -> None:
    """Send a complete answer."""
    own = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, value: object, *, status: int = 200) -> None:
    """Send a value as JSON."""
    await answer(send, status, as_json(value))


async def answer_error(
    send: Send, error: HttpError, headers: Iterable[tuple[bytes, bytes]] = (), *, path: str = ""
) -> None:
    """Send an error, in the form of the API at ``path``."""
    await answer(send, error.status, error.body(path), [*error.headers(), *headers])


async def read_body(receive: Receive, limit: int) -> bytes:
    """Return the whole body of a request.

    Raises:
        ClientGone: the connection was closed.
        BodyTooLarge: it has more than ``limit`` bytes.
    """
    pieces = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces += message.get("body", b"")
        if len(pieces) > limit:
            raise BodyTooLarge
        if not message.get("more_body"):
            return bytes(pieces)


async def client_gone(receive: Receive) -> None:
    """Wait until the HTTP client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; cancel it once the HTTP client closes the connection.

    Raises:
        ClientGone: the connection was closed.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(client_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def replaying(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body that was read already, and then what else comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
