"""Requests that begin alike meet at the executor that computed their beginning."""

from __future__ import annotations

from contextlib import suppress

from sage_client import AsyncClient, Completion, SageError
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually

PROMPT = [100 + n % 97 for n in range(400)]
BLOCK = 64


async def ask(client: AsyncClient, prompt: list[int], *, preferred_instance: str = "") -> Completion:
    return await client.generate(token_ids=prompt, max_tokens=2, preferred_instance=preferred_instance).result()


async def start(fleet: LocalFleet, *names: str) -> None:
    """Start executors and wait for their first reports: what a session reports first replaces what was believed."""
    for name in names:
        await fleet.add(name)
    sessions = fleet.scheduler.control.instances.table
    found = [session for name in names if (session := sessions.find(name)) is not None]
    await eventually(lambda: all(each.cache_reports for each in found), what="the first reports")


async def test_conversations_go_where_their_history_is(fleet: LocalFleet) -> None:
    await start(fleet, "one", "two", "three")
    beginnings = [[200 + number, *PROMPT] for number in range(6)]
    homes = [(await ask(fleet.client, prompt)).instance_id for prompt in beginnings]
    assert len(set(homes)) > 1

    for prompt, home in reversed(list(zip(beginnings, homes, strict=True))):
        answer = await ask(fleet.client, [*prompt, 7, 7, 7])

        assert answer.instance_id == home
        assert answer.decisions[0].cached_tokens == 401 // BLOCK * BLOCK
        assert answer.usage.cached_prompt_tokens >= 401 // BLOCK * BLOCK


async def test_a_new_session_tells_what_the_engine_holds(fleet: LocalFleet) -> None:
    await start(fleet, "one", "two")
    await ask(fleet.client, PROMPT, preferred_instance="two")
    control = fleet.scheduler.control
    for name in ("one", "two"):
        control.scheduler.report_cache(name, CacheReport(block_tokens=BLOCK, cleared=True))  # as if it were new
    control.instances.sessions.end_all("the test wants new ones")

    async def told() -> bool:
        with suppress(SageError):
            answer = await ask(fleet.client, PROMPT)
            return answer.instance_id == "two" and answer.decisions[0].cached_tokens > 0
        return False

    await eventually(told, what="the scheduler to know of the prompt")


async def test_explain_tells_what_was_believed_of_each_candidate(fleet: LocalFleet) -> None:
    await start(fleet, "one", "two")
    home = (await ask(fleet.client, PROMPT)).instance_id

    answer = await ask(fleet.client, PROMPT)

    (decision,) = (await fleet.client.explain(answer.request_id)).decisions
    assert {row.instance_id: row.cached_tokens for row in decision.candidates} == {
        name: 400 // BLOCK * BLOCK if name == home else 0 for name in ("one", "two")
    }
    assert any("prompt tokens in its cache" in reason for reason in decision.reasons)


async def test_switched_off_every_instance_takes_its_turn() -> None:
    async with LocalFleet(prefix={"aware": False}) as fleet:
        for name in ("one", "two"):
            await fleet.add(name)

        answers = [await ask(fleet.client, PROMPT) for _ in range(4)]

        assert {each.instance_id for each in answers} == {"one", "two"}
        assert all(each.decisions[0].cached_tokens == 0 for each in answers)
