"""Fetches the images and audio of conversations from the hosts that the operator allows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from sage_gateway.conversation_media import BadPart, Media, MediaPart, made
from sage_gateway.media_hosts import MediaHosts, NotFetched
from sage_gateway.media_memory import HeldMedia
from sage_media.kinds import MEDIA_LIMIT_BYTES, MediaKind
from sage_media.urls import media_type, shown

TIMEOUT_S = 10.0
"""Seconds that all content of a request may take, with redirects and the wait for a connection."""

REDIRECTS_LIMIT = 3
"""Most redirects of one address; the host of each one has to be allowed."""

CONNECTIONS_LIMIT = 32
"""Most addresses that are fetched at the same time, of all requests."""

HOST_CONNECTIONS_LIMIT = 16
"""Most of them from one host, so that a host that does not answer leaves room for others."""

_PIECE_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TYPES = {kind: ", ".join(sorted(kind.types)) for kind in MediaKind}


class MediaFetcher:
    """Fetches images and audio of bounded size from hosts that are allowed.  Sends no cookies, uses no proxy."""

    def __init__(self, hosts: MediaHosts, resolver: AbstractResolver | None = None) -> None:
        """Make one in a running event loop.  ``resolver``: finds the addresses of hosts; by default the system's."""
        self._hosts = hosts
        self._resolver = _CheckedResolver(hosts, resolver or aiohttp.ThreadedResolver())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver, limit=CONNECTIONS_LIMIT, limit_per_host=HOST_CONNECTIONS_LIMIT
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # what a request fetches has one bound
            headers={"accept-encoding": "identity", "user-agent": "sage-gateway"},
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._resolver.close()

    async def __call__(self, parts: Sequence[MediaPart], held: HeldMedia) -> Sequence[Media]:
        """Return the content at the addresses of parts, in their order.

        Raises:
            BadPart: one may not be fetched, cannot be had within TIMEOUT_S, is too large, or is of another kind.
            MediaMemoryFull: there is no room for it in ``held``.
        """
        room = _Room(held)
        tasks: list[asyncio.Task[Media]] = []
        try:
            async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
                for part in parts:
                    tasks.append(group.create_task(self._of_part(part, room), name="fetch-media"))
        except TimeoutError:
            late = next((part for part, task in zip(parts, tasks, strict=True) if task.cancelled()), parts[0])
            raise BadPart(late.place, f"{shown(late.url)} was not fetched within {TIMEOUT_S:g} s") from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _of_part(self, part: MediaPart, room: _Room) -> Media:
        """Return the content at the address of a part.  Raises BadPart and MediaMemoryFull."""
        try:
            return await self._at(part.url, part.kind, room)
        except NotFetched as error:
            raise BadPart(part.place, f"{shown(part.url)} {error}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = "stands at a private address" if _is_private(error) else "cannot be fetched"
            raise BadPart(part.place, f"{shown(part.url)} {why}") from None

    async def _at(self, url: str, kind: MediaKind, room: _Room) -> Media:
        """Return the content at an address.  Raises NotFetched, and what aiohttp raises."""
        for redirects in range(REDIRECTS_LIMIT + 1):
            try:
                checked = self._hosts.check(url)
            except NotFetched as error:
                raise NotFetched(f"leads to {shown(url)}, which {error}" if redirects else str(error)) from None
            request = self._session.get(URL(checked, encoded=True), headers=_accept(kind), allow_redirects=False)
            async with request as answer:
                if answer.status not in _REDIRECTS:
                    return await _content_of(answer, kind, room)
                url = urljoin(checked, answer.headers.get("location", ""))
        raise NotFetched(f"is redirected more than {REDIRECTS_LIMIT} times")


class _Room:
    """How many bytes the content of one request may still have."""

    def __init__(self, held: HeldMedia) -> None:
        self._held = held
        self._left = MEDIA_LIMIT_BYTES

    def take(self, size: int) -> None:
        """Take bytes.  Raises NotFetched if they are too many for a request, MediaMemoryFull if for all of them."""
        self._left -= size
        if self._left < 0:
            raise NotFetched(f"has, with what else is fetched, more than {MEDIA_LIMIT_BYTES} bytes")
        self._held.take(size)


class _PrivateAddress(OSError):
    """A host stands at no address of the Internet, and at none that is named."""


class _CheckedResolver(AbstractResolver):
    """Finds the addresses of hosts and leaves out those that are not allowed: connections go to what is left."""

    def __init__(self, hosts: MediaHosts, resolver: AbstractResolver) -> None:
        self._hosts = hosts
        self._resolver = resolver

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
        """Return the allowed addresses of a host.  Raises OSError."""
        found = await self._resolver.resolve(host, port, family)
        allowed = [each for each in found if self._hosts.allows(each["host"], port)]
        if not allowed:
            raise _PrivateAddress(None, f"{host} stands at a private address")
        return allowed

    async def close(self) -> None:
        """Close the resolver behind this one."""
        await self._resolver.close()


def _accept(kind: MediaKind) -> dict[str, str]:
    return {"accept": _TYPES[kind]}


async def _content_of(answer: Any, kind: MediaKind, room: _Room) -> Media:
    """Return the content in an answer.  Raises NotFetched if there is none, or too much; MediaMemoryFull."""
    if answer.status != 200:
        raise NotFetched(f"was answered with status {answer.status}")
    mime_type = media_type(answer.content_type)
    if mime_type not in kind.types:
        raise NotFetched(f"is {answer.content_type[:64]}, none of {_TYPES[kind]}")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise NotFetched("is compressed beyond its own format")
    data = bytearray()
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        data += piece
        if len(data) > kind.limit_bytes:
            raise NotFetched(f"has more than {kind.limit_bytes} bytes")
        room.take(len(piece))
    if not data:
        raise NotFetched("is empty")
    return made(kind, bytes(data), mime_type)


def _is_private(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _PrivateAddress)
