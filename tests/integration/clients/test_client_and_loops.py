"""Clients and event loops: made before one runs, used on another one, and where their address comes from."""

from __future__ import annotations

import asyncio

import pytest

from sage_client import AsyncClient, ConfigurationError, TlsRequiredError, UnavailableError
from sage_client._connection import ADDRESS_VARIABLE
from tests.integration.clients.fake_scheduler import FakeScheduler, started, whole_text


async def complete(client: AsyncClient) -> str:
    return (await client.generate("hi", max_tokens=3).result()).text


@pytest.mark.parametrize("sessions", [True, False])
def test_a_client_made_before_its_loop_works_on_it(sessions: bool) -> None:
    async def address() -> tuple[FakeScheduler, str]:
        fake = await started()
        return fake, fake.address

    with asyncio.Runner() as runner:
        fake, where = runner.run(address())
        client = AsyncClient(where, use_sessions=sessions)  # outside of any coroutine

        async def use() -> str:
            async with client:
                return await complete(client)

        text = runner.run(use())
        runner.run(fake.stop())
    assert text == whole_text(3)


async def test_another_loop_is_told_so(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address) as client:
        await complete(client)

        def elsewhere() -> None:
            asyncio.run(complete(client))

        with pytest.raises(UnavailableError, match="belongs to another event loop"):
            await asyncio.to_thread(elsewhere)
        assert await complete(client) == whole_text(3)


def test_wrong_settings_are_told_before_any_loop() -> None:
    with pytest.raises(ConfigurationError, match="not host:port"):
        AsyncClient("nowhere")
    with pytest.raises(TlsRequiredError):
        AsyncClient("example.com:5")


async def test_the_address_is_that_of_the_environment(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, scheduler.address)
    async with AsyncClient() as client:
        assert await complete(client) == whole_text(3)
