"""Images are fetched within bounds, from hosts that are named and at addresses that may be reached."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from sage_client import Image
from sage_gateway.conversation_images import BadPart, ImagePart
from sage_gateway.media_hosts import MediaHosts, media_host
from sage_gateway.vllm_server import image_fetcher
from sage_gateway.vllm_server.image_fetcher import ImageFetcher
from sage_wire.protocol import IMAGE_LIMIT_BYTES, IMAGES_LIMIT_BYTES

pytestmark = pytest.mark.vllm

NAME = "images.example"


class PictureServer:
    """Serves images, and what is none, on a free port of loopback."""

    def __init__(self) -> None:
        self.port = 0
        self.headers: list[Any] = []  # of each request

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        kind, _, rest = request.path.removeprefix("/").partition("/")
        if kind == "to":
            raise web.HTTPFound(request.query["where"])
        if kind == "round":
            raise web.HTTPFound("/round")
        if kind == "never":
            await asyncio.Event().wait()
        if kind == "missing":
            raise web.HTTPNotFound
        if kind == "packed":
            return web.Response(body=b"x", content_type="image/png", headers={"content-encoding": "gzip"})
        if kind == "text":
            return web.Response(text="<html>")
        if kind == "bytes":
            return web.Response(body=bytes(int(rest)), content_type="image/png")
        return web.Response(body=request.path.encode(), content_type="image/png")

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"


class Loopback:
    """Finds every host on loopback."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [found]

    async def close(self) -> None:
        pass


@pytest_asyncio.fixture
async def server() -> AsyncIterator[PictureServer]:
    made = PictureServer()
    application = web.Application()
    application.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


async def fetched(server: PictureServer, *urls: str, hosts: tuple[str, ...] = ("127.0.0.1",)) -> list[Image]:
    named = [media_host(f"{each}:{server.port}") for each in hosts]
    fetcher = ImageFetcher(MediaHosts(named), Loopback())
    try:
        parts = [ImagePart(place=f"place[{at}]", part={}, url=each) for at, each in enumerate(urls)]
        return list(await fetcher(parts))
    finally:
        await fetcher.close()


async def refused(server: PictureServer, *urls: str, hosts: tuple[str, ...] = ("127.0.0.1",)) -> str:
    with pytest.raises(BadPart) as bad:
        await fetched(server, *urls, hosts=hosts)
    return f"{bad.value.place}: {bad.value}"


async def test_images_come_in_the_order_of_their_parts(server: PictureServer) -> None:
    found = await fetched(server, server.url("image/a"), server.url("image/b?x=%2F"))
    assert [(each.data, each.mime_type) for each in found] == [(b"/image/a", "image/png"), (b"/image/b", "image/png")]
    assert all("cookie" not in each and "authorization" not in each for each in server.headers)


async def test_a_name_at_a_private_address_is_refused_unless_the_address_is_named(server: PictureServer) -> None:
    url = server.url("image", NAME)
    assert "stands at a private address" in await refused(server, url, hosts=(NAME,))
    assert server.headers == []
    assert await fetched(server, url, hosts=(NAME, "127.0.0.1"))


async def test_a_host_that_is_not_named_is_refused(server: PictureServer) -> None:
    words = await refused(server, server.url("image"), server.url("image", NAME))
    assert words.startswith("place[1]: ")
    assert "is not on a host that images are fetched from" in words


async def test_each_redirect_is_checked(server: PictureServer) -> None:
    assert await fetched(server, server.url("to/?where=/image/next"))
    words = await refused(server, server.url("to/?where=http://169.254.169.254/latest"))
    assert "leads to 'http://169.254.169.254/latest', which is not on a host" in words
    assert "leads to 'file:///etc/passwd'" in await refused(server, server.url("to/?where=file:///etc/passwd"))


async def test_redirects_end(server: PictureServer) -> None:
    assert "is redirected more than 3 times" in await refused(server, server.url("round"))
    assert len(server.headers) == 4


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "was answered with status 404"),
        ("text", "is text/plain, none of image/gif, image/jpeg"),
        ("packed", "is compressed"),
        ("bytes/0", "is empty"),
        (f"bytes/{IMAGE_LIMIT_BYTES + 1}", f"has more than {IMAGE_LIMIT_BYTES} bytes"),
    ],
)
async def test_what_is_no_image_within_the_bounds_is_refused(server: PictureServer, path: str, words: str) -> None:
    assert words in await refused(server, server.url(path))


async def test_all_images_of_a_request_have_a_bound_together(server: PictureServer) -> None:
    third = server.url(f"bytes/{IMAGES_LIMIT_BYTES // 2 - 1}")
    assert len(await fetched(server, third, third)) == 2
    assert f"with the other images, more than {IMAGES_LIMIT_BYTES}" in await refused(server, third, third, third)


async def test_a_server_that_does_not_answer_is_given_up(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_fetcher, "TIMEOUT_S", 0.3)
    words = await refused(server, server.url("image"), server.url("never"))
    assert words.startswith("place[1]: ")
    assert "was not fetched within 0.3 s" in words


async def test_a_server_that_is_not_there_cannot_be_fetched_from(server: PictureServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server.port = taken.getsockname()[1]
        assert "cannot be fetched" in await refused(server, server.url("image"))


async def test_a_host_that_does_not_answer_leaves_room_for_others(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_fetcher, "CONNECTIONS_LIMIT", 2)
    monkeypatch.setattr(image_fetcher, "HOST_CONNECTIONS_LIMIT", 1)
    hosts = MediaHosts([media_host(f"{each}:{server.port}") for each in ("slow.example", "127.0.0.1")])
    fetcher = ImageFetcher(hosts, Loopback())
    never = [ImagePart(place="slow", part={}, url=server.url("never", "slow.example"))] * 3
    waiting = asyncio.create_task(fetcher(never))
    try:
        while not server.headers:
            await asyncio.sleep(0)
        assert await fetcher([ImagePart(place="quick", part={}, url=server.url("image"))])
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await fetcher.close()


@pytest.mark.parametrize("name", [f"{'a' * 64}.example", f"{'a.' * 200}example"], ids=["label", "name"])
async def test_a_name_that_no_host_can_have_cannot_be_fetched_from(server: PictureServer, name: str) -> None:
    fetcher = ImageFetcher(MediaHosts([media_host(f"*.example:{server.port}")]))
    with pytest.raises(BadPart, match="cannot be fetched"):
        await fetcher([ImagePart(place="place", part={}, url=server.url("image", name))])
    await fetcher.close()
