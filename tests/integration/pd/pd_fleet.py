"""A scheduler that splits requests, and executors in their roles: what the tests of this room ask of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncStream, Completion, HistoryEntry, PairState, PrefillDecodePair
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.telemetry.scraped_page import Page, scrape
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer, encode
from tests.support.token_check import assert_tokens

LENGTH = 24  # output tokens of most requests here
SOON_S = 2.0  # within which KV is free while both engines live
LEASE_S = 10.0  # longer than any test here takes: what is free sooner is free by what was said
SHORT_LEASE_S = 1.5  # for the tests that wait for its end; executors refuse a leg with less than 1 s of it left
KV = {"connector": "NixlConnector", "handshake_s": 0.01, "pull_base_s": 0.01, "lease_s": LEASE_S}
SHORT_LEASE = {"lease_s": SHORT_LEASE_S}
HEALTH = "sage.controlplane.v1.PrefillDecode"


def prompt(number: int) -> str:
    """About 160 tokens; no two begin alike, so that no prefix cache stands in for a handoff."""
    return f"{number} times upon a time " + f"there was tale {number}. " * 8


class PdFleet(LocalFleet):
    def __init__(self, *, mode: str = "always", pd: dict[str, Any] | None = None, **settings: Any) -> None:
        section = {"enabled": mode != "never", "routing_policy": mode, **(pd or {})}
        if mode == "never":
            del section["routing_policy"]
        super().__init__(telemetry={"metrics_listen": "127.0.0.1:0"}, pd_separation=section, **settings)

    async def add_leg(
        self, name: str, role: str, *, kv: Mapping[str, Any] | None = None, **options: Any
    ) -> LocalExecutor:
        """An executor in a role, with a KV connector."""
        return await self.add(name, settings={"role": role}, kv_transfer={**KV, **(kv or {})}, **options)

    async def add_pair(self, **options: Any) -> tuple[LocalExecutor, LocalExecutor]:
        """``p`` and ``d``, proved.  Prefill takes long enough to be caught in it."""
        prefill = await self.add_leg("p", "prefilling", **{"prefill_tokens_per_s": 2000.0, **options})
        decode = await self.add_leg("d", "decoding", **options)
        await self.proved()
        return prefill, decode

    async def proved(self, count: int = 1) -> None:
        """So many pairs are usable, and what proved them has left nothing behind."""

        async def there() -> bool:
            return [each.state for each in await self.pairs()].count(PairState.USABLE) >= count

        await eventually(there, what="a usable pair")
        await self.free(*self.executors)

    async def pairs(self) -> tuple[PrefillDecodePair, ...]:
        return (await self.client.get_prefill_decode()).pairs

    # --- what became of it ------------------------------------------------------------------------

    def ask(self, text: str, **options: Any) -> AsyncStream:
        return self.client.generate(text, **{"temperature": 0, "max_tokens": LENGTH, **options})

    async def complete(self, stream: AsyncStream, text: str) -> Completion:
        """Read it to its end, and hold it against the answer of one engine asked directly."""
        done = await stream.result()
        wanted = await answer(text, Sampling(temperature=0, max_tokens=len(done.token_ids)))
        assert_tokens(done.token_ids, wanted.token_ids, stream.request_id)
        assert done.text == wanted.text
        assert done.usage.prompt_tokens == len(encode(text))
        return done

    async def answered(self, number: int, **options: Any) -> Completion:
        """Ask and complete."""
        done = await self.complete(self.ask(prompt(number), **options), prompt(number))
        assert len(done.token_ids) == options.get("max_tokens", LENGTH)
        return done

    async def history(self, request_id: str) -> list[HistoryEntry]:
        return list((await self.client.explain(request_id)).history)

    async def fallbacks(self, request_id: str) -> list[str]:
        """As explain tells them, in words."""
        return [entry.detail for entry in await self.history(request_id) if entry.event == "fallback"]

    async def free(self, *names: str, within_s: float = SOON_S) -> None:
        """KV, by the engines' own count and by the scheduler's of what it promised."""

        async def nothing_held() -> bool:
            there = {each.instance_id: each for each in (await self.client.list_instances()).instances}
            held = {name: (there[name].kv_used_tokens, there[name].kv_reserved_tokens) for name in names}
            return not any(any(counts) for counts in held.values())

        await eventually(nothing_held, within_s=within_s, what=f"the KV of {names} to be free")

    async def page(self) -> Page:
        """The scheduler's metrics."""
        return await scrape(self.scheduler.telemetry.exports.metrics_port)

    async def assert_fallbacks(self, *, perhaps: str = "", **by_reason: int) -> None:
        """On the metrics page: these and no others; and to operators, their sum.

        ``perhaps``: a reason that is counted once more or not, by which of two messages came first.
        """
        page = await self.page()
        found = {
            labels["reason"]: int(page.total("sage_pd_fallbacks_total", **labels))
            for labels in page.label_sets("sage_pd_fallbacks_total")
        }
        counted = {reason: count for reason, count in found.items() if count}
        if perhaps and counted.get(perhaps, 0) > by_reason.get(perhaps, 0):
            by_reason[perhaps] = by_reason.get(perhaps, 0) + 1
        assert counted == by_reason, f"{counted}, not {by_reason}"
        assert (await self.client.get_prefill_decode()).fallbacks == sum(by_reason.values())

    async def health_says(self, *, serving: bool) -> None:
        """What a health check of splitting says, which may be a moment behind."""
        stub = health_pb2_grpc.HealthStub(self.channel())
        wanted = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING

        async def said() -> bool:
            request = health_pb2.HealthCheckRequest(service=HEALTH)
            told = await stub.Check(request)  # type: ignore[attr-defined]
            return bool(told.status == wanted)

        await eventually(said, what=f"health to say serving={serving}")


async def until(reached: Callable[[], object] | Callable[[], Awaitable[object]], what: str) -> None:
    async def there() -> bool:
        found = reached()
        return bool(await found if isinstance(found, Awaitable) else found)

    await eventually(there, what=what, every_s=0.002)


def prefilling(executor: LocalExecutor) -> Callable[[], bool]:
    """Whether an engine computes something now."""
    return lambda: executor.engine.load().running > 0


def fetching(executor: LocalExecutor) -> Callable[[], bool]:
    """Whether an engine fetches a prompt's KV now."""
    return lambda: executor.engine.load().known_wait == "a KV transfer"
