"""Images and audio are fetched within bounds, from hosts that are named and at addresses that may be reached."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from sage_gateway.conversation_media import BadPart, Media, MediaPart
from sage_gateway.media_hosts import MediaHosts, media_host
from sage_gateway.media_memory import HeldMedia, MediaMemory, MediaMemoryFull
from sage_gateway.vllm_server import media_fetcher
from sage_gateway.vllm_server.media_fetcher import MediaFetcher
from sage_media.kinds import IMAGE_LIMIT_BYTES, MEDIA_LIMIT_BYTES, MediaKind

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
        if kind == "sound":
            return web.Response(body=b"sound", content_type="audio/x-wav")
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


def part(url: str, place: str = "place", kind: MediaKind = MediaKind.IMAGE) -> MediaPart:
    return MediaPart(kind=kind, place=place, part={}, url=url)


async def fetched(server: PictureServer, *urls: str, hosts: tuple[str, ...] = ("127.0.0.1",)) -> list[Media]:
    named = [media_host(f"{each}:{server.port}") for each in hosts]
    fetcher = MediaFetcher(MediaHosts(named), Loopback())
    try:
        parts = [part(each, f"place[{at}]") for at, each in enumerate(urls)]
        return list(await fetcher(parts, HeldMedia(MediaMemory())))
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
    assert "is not on a host that images and audio are fetched from" in words


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
    third = server.url(f"bytes/{MEDIA_LIMIT_BYTES // 2 - 1}")
    assert len(await fetched(server, third, third)) == 2
    assert f"with what else is fetched, more than {MEDIA_LIMIT_BYTES}" in await refused(server, third, third, third)


async def test_audio_is_fetched_as_images_are_and_one_is_not_the_other(server: PictureServer) -> None:
    fetcher = MediaFetcher(MediaHosts([media_host(f"127.0.0.1:{server.port}")]), Loopback())
    held = HeldMedia(MediaMemory())
    try:
        [found] = await fetcher([part(server.url("sound"), kind=MediaKind.AUDIO)], held)
        assert (found.data, found.mime_type, held.size) == (b"sound", "audio/wav", 5)
        assert server.headers[0]["accept"] == "audio/flac, audio/mpeg, audio/ogg, audio/wav"
        with pytest.raises(BadPart, match="is image/png, none of audio/flac"):
            await fetcher([part(server.url("image"), kind=MediaKind.AUDIO)], held)
    finally:
        await fetcher.close()
    assert "is audio/x-wav, none of image/gif" in await refused(server, server.url("sound"))


async def test_what_all_requests_fetch_is_bounded_while_it_arrives(server: PictureServer) -> None:
    fetcher = MediaFetcher(MediaHosts([media_host(f"127.0.0.1:{server.port}")]), Loopback())
    memory = MediaMemory(150_000)
    try:
        with memory.held() as one, memory.held() as other:
            await fetcher([part(server.url("bytes/100000"))], one)
            with pytest.raises(MediaMemoryFull, match="the limit is 150000"):
                await fetcher([part(server.url("bytes/100000"))], other)
            assert one.size == 100_000
        assert memory.taken == 0
    finally:
        await fetcher.close()


async def test_a_server_that_does_not_answer_is_given_up(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_fetcher, "TIMEOUT_S", 0.3)
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
    monkeypatch.setattr(media_fetcher, "CONNECTIONS_LIMIT", 2)
    monkeypatch.setattr(media_fetcher, "HOST_CONNECTIONS_LIMIT", 1)
    hosts = MediaHosts([media_host(f"{each}:{server.port}") for each in ("slow.example", "127.0.0.1")])
    fetcher = MediaFetcher(hosts, Loopback())
    held = HeldMedia(MediaMemory())
    never = [part(server.url("never", "slow.example"), "slow")] * 3
    waiting = asyncio.create_task(fetcher(never, held))
    try:
        while not server.headers:
            await asyncio.sleep(0)
        assert await fetcher([part(server.url("image"))], held)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await fetcher.close()


@pytest.mark.parametrize("name", [f"{'a' * 64}.example", f"{'a.' * 200}example"], ids=["label", "name"])
async def test_a_name_that_no_host_can_have_cannot_be_fetched_from(server: PictureServer, name: str) -> None:
    fetcher = MediaFetcher(MediaHosts([media_host(f"*.example:{server.port}")]))
    with pytest.raises(BadPart, match="cannot be fetched"):
        await fetcher([part(server.url("image", name))], HeldMedia(MediaMemory()))
    await fetcher.close()
