"""One prefill and one decode executor under a scheduler, and what the tests ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from sage_client import AsyncClient, Completion, Instance, InstanceRole, InstanceState, PairState
from tests.integration.telemetry.scraped_page import scrape
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.service_process import ServiceProcess
from tests.support.token_check import assert_tokens
from tests.vllm.pd_system.altering_proxy import AlteringProxy
from tests.vllm.pd_system.checked_stream import TOKENS, CheckedStream
from tests.vllm.pd_system.engine_settings import DECODE, KV_LEASE_S, NAMES, PREFILL, UP_WITHIN_S

ROLES = {PREFILL: InstanceRole.PREFILLING, DECODE: InstanceRole.DECODING}
LEAST_DISTINCT = 20  # tokens of 48: fewer, and a fault might not show
SOON_S = 4.0  # within which KV is free while both engines live: sooner than by the end of its lease


def prompt(length: int, number: int) -> list[int]:
    """No two numbers begin alike, so that no prefix cache stands in for a handoff."""
    return [20 + (number * 131 + index * 11 + index * index) % 4000 for index in range(length)]


class PdFleet:
    def __init__(self, processes: FleetProcesses, proxy: AlteringProxy, client: AsyncClient) -> None:
        self.processes = processes
        self.proxy = proxy  # between the decode executor and the scheduler
        self.client = client
        self._numbers = iter(range(1, 1_000_000))

    def prompt(self, length: int) -> list[int]:
        """One that was never asked before."""
        return prompt(length, next(self._numbers))

    def stream(self, prompt: Sequence[int], **options: Any) -> CheckedStream:
        return CheckedStream(self.client, prompt, **options)

    def executor(self, name: str) -> ServiceProcess:
        return self.processes.executors[name]

    # --- its state --------------------------------------------------------------------------------

    async def whole(self) -> None:
        """Both executors run in the roles they were started in, everything is split, and the pair is proved."""
        for name in NAMES:
            if not self.executor(name).running:
                self.executor(name).start()
        for name in NAMES:
            await self.processes.until(name, InstanceState.READY, InstanceState.DRAINED, within_s=UP_WITHIN_S)
            await self.client.resume_instance(name)
            await self.client.set_instance_role(name, ROLES[name])
        await self.client.set_prefill_decode("always")
        await self.pair_is(PairState.USABLE)

    async def pair_is(self, state: PairState, *, within_s: float = 30.0) -> None:
        async def there() -> bool:
            pairs = (await self.client.get_prefill_decode()).pairs
            return [(p.prefill_instance_id, p.decode_instance_id, p.state) for p in pairs] == [(PREFILL, DECODE, state)]

        await eventually(there, within_s=within_s, what=f"the pair to be {state.value}", every_s=0.05)

    async def fallbacks(self) -> int:
        """As operators and as Prometheus are told; the metrics page may show a reading of a moment ago."""
        told = (await self.client.get_prefill_decode()).fallbacks
        port = await self.processes.scheduler.said(r"metrics on \S+ port (\d+)")

        async def shown() -> bool:
            return (await scrape(int(port.group(1)))).total("sage_pd_fallbacks_total") == told

        await eventually(shown, within_s=SOON_S, what=f"the metrics page to show {told} fallbacks", every_s=0.05)
        return told

    async def failovers(self) -> float:
        port = await self.processes.scheduler.said(r"metrics on \S+ port (\d+)")
        return (await scrape(int(port.group(1)))).total("sage_failovers_total")

    async def nothing_held(self, *names: str, within_s: float = SOON_S) -> None:
        """By the engines' own count of their KV, and by the scheduler's of what it promised."""

        async def free() -> bool:
            there = [await self.client.get_instance(name) for name in names or NAMES]
            return not any(map(_held, there))

        try:
            await eventually(free, within_s=within_s, what="KV to be free", every_s=0.05)
        except AssertionError as error:
            held = {name: _held(await self.client.get_instance(name)) for name in names or NAMES}
            raise AssertionError(f"{error}: {held} (used, reserved, attempts)") from None

    # --- what it answers --------------------------------------------------------------------------

    async def history(self, request_id: str, event: str) -> list[str]:
        """Details of the entries of one kind in its explanation."""
        return [e.detail for e in (await self.client.explain(request_id)).history if e.event == event]

    async def complete(self, prompts: Iterable[Sequence[int]], **options: Any) -> list[Completion]:
        """All at once."""
        return await asyncio.gather(*(self.stream(each, **options).complete() for each in prompts))

    async def check(self, prompts: Sequence[Sequence[int]], done: Sequence[Completion]) -> None:
        """Against what the prefill engine says to the same prompts whole, by itself.

        That is asked now, after the streams: an engine that had computed a prompt would not fetch it any more.
        """
        client = self.client
        await client.set_prefill_decode("never")
        await client.set_instance_role(PREFILL, InstanceRole.GENERAL)
        try:
            whole = await self.complete(prompts, max_tokens=max(len(each.token_ids) for each in done))
        finally:
            await client.set_instance_role(PREFILL, InstanceRole.PREFILLING)
            await client.set_prefill_decode("always")
        for mine, theirs, asked in zip(done, whole, prompts, strict=True):
            assert (theirs.instance_id, theirs.attempts) == (PREFILL, 1)
            distinct = len(set(theirs.token_ids[:TOKENS]))
            assert distinct >= LEAST_DISTINCT, f"{distinct} distinct tokens: a fault would not show"
            assert_tokens(
                mine.token_ids, theirs.token_ids[: len(mine.token_ids)], f"{len(asked)} tokens, {mine.request_id}"
            )


def _held(instance: Instance) -> tuple[int, int, int] | None:
    held = (instance.kv_used_tokens, instance.kv_reserved_tokens, instance.assigned)
    return held if any(held) else None


def is_split(done: Completion) -> bool:
    """By its last decision."""
    decision = done.decisions[-1]
    return (decision.prefill_instance_id, decision.instance_id) == (PREFILL, DECODE)


WITHIN_LEASE_S = KV_LEASE_S + SOON_S
