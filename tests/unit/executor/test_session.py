"""The session over a link without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from executor_svc.runtime.engine_port import Sampling
from executor_svc.runtime.link import LinkRefused
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import (
    Assign,
    Cancel,
    KeepRole,
    ReleaseKv,
    Resume,
    TokenizerWanted,
)
from executor_svc.runtime.messages.outputs import EndCause, Ended, StepFrame
from executor_svc.runtime.messages.registration import (
    AutomaticRole,
    Identity,
    Register,
    Role,
    Welcome,
)
from executor_svc.runtime.messages.reports import Heartbeat, TokenizerChunk
from executor_svc.runtime.session.load_meter import LoadMeter
from executor_svc.runtime.session.loop_lag import LoopLag
from executor_svc.runtime.session.opener import RegistrationRefused
from executor_svc.runtime.session.session import Session
from executor_svc.runtime.session.timings import SessionTimings
from tests.unit.executor.memory_link import WELCOME, MemoryDialer, MemoryLink, UnreachableLink
from tests.unit.executor.workbench import EPOCH, PROMPT, Workbench, workbench

TIMINGS = SessionTimings(first_retry_s=0.001, most_retry_s=0.002, heartbeat_gap_s=0.001)
ENDLESS = Sampling(temperature=0, max_tokens=4000, ignore_eos=True)


def session_of(bench: Workbench, dialer: MemoryDialer, *addresses: str, timings: SessionTimings = TIMINGS) -> Session:
    return Session(
        identity=Identity(instance_id="one", engine_start_id="e", role=Role.GENERAL, model="sim"),
        addresses=addresses or ("a",),
        dialer=dialer,
        attempts=bench.attempts,
        outbox=bench.outbox,
        meter=LoadMeter(LoopLag()),
        timings=timings,
    )


@asynccontextmanager
async def running(session: Session) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(session.run(), name="session")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def assign(number: int) -> Assign:
    return Assign(
        number=number,
        attempt=AttemptId(EPOCH, number),
        request_id="r",
        prompt_token_ids=PROMPT,
        sampling=ENDLESS,
    )


async def first_end(link: MemoryLink) -> Ended:
    async with asyncio.timeout(5):
        while not (found := [message for message in link.outputs if isinstance(message, Ended)]):
            await asyncio.sleep(0)
    return found[0]


async def dialled(times: int, dialer: MemoryDialer) -> None:
    async with asyncio.timeout(5):
        while len(dialer.dialled) < times:
            await asyncio.sleep(0)


async def test_the_addresses_are_tried_in_turn_and_the_good_one_first_the_next_time() -> None:
    async with workbench(reading=False) as bench:
        good = MemoryLink()
        dialer = MemoryDialer(UnreachableLink(), good, MemoryLink())
        async with running(session_of(bench, dialer, "a", "b")):
            await good.heard(Heartbeat)
            good.cut()
            await dialled(3, dialer)
        assert dialer.dialled[:3] == ["a", "b", "b"]


class Refusing(MemoryLink):
    def __init__(self, *, permanent: bool, about_credentials: bool = False) -> None:
        super().__init__()
        self._permanent = permanent
        self._about_credentials = about_credentials

    async def register(self, register: Register) -> Welcome:
        raise LinkRefused(
            "SOME_REASON", "not you", permanent=self._permanent, about_credentials=self._about_credentials
        )


async def test_it_gives_up_only_when_every_scheduler_refused_it_for_good() -> None:
    async with workbench(reading=False) as bench:
        first_round = (Refusing(permanent=True), Refusing(permanent=False))
        dialer = MemoryDialer(*first_round, Refusing(permanent=True), Refusing(permanent=True))
        with pytest.raises(RegistrationRefused, match="a: not you; b: not you"):
            await session_of(bench, dialer, "a", "b").run()
        assert dialer.dialled == ["a", "b", "a", "b"]


async def test_who_was_accepted_once_outlasts_a_refusal_of_its_credentials() -> None:
    """Its key may be missing from the file for a moment; the engine and its KV cache are worth the wait."""
    async with workbench(reading=False) as bench:
        first, second = MemoryLink(replace(WELCOME, resume_secret=b"proof")), MemoryLink()
        dialer = MemoryDialer(first, Refusing(permanent=True, about_credentials=True), second)
        async with running(session_of(bench, dialer)):
            await first.heard(Heartbeat)
            first.cut()
            await second.heard(Heartbeat)
        assert first.registered is not None
        assert second.registered is not None
        assert (first.registered.resume_secret, second.registered.resume_secret) == (b"", b"proof")


async def test_who_was_never_accepted_does_not_wait_for_credentials() -> None:
    async with workbench(reading=False) as bench:
        dialer = MemoryDialer(Refusing(permanent=True, about_credentials=True))
        with pytest.raises(RegistrationRefused):
            await session_of(bench, dialer).run()


async def test_the_lease_runs_from_the_refusal_and_not_from_the_next_try() -> None:
    class RefusedLater(MemoryLink):
        async def send_output(self, message: StepFrame) -> None:
            raise LinkRefused("SOME_REASON", "not you any more", permanent=False)

    async with workbench(reading=False) as bench:
        welcome = Welcome(session_id="s", epoch=EPOCH, lease_s=0.05, heartbeat_interval_s=60.0)
        link = RefusedLater(welcome)
        session = session_of(bench, MemoryDialer(link, MemoryLink()), timings=replace(TIMINGS, most_retry_s=3_600.0))
        async with running(session):
            await link.heard(Heartbeat)
            link.say(assign(1))
            async with asyncio.timeout(5):
                while session.connected:
                    await asyncio.sleep(0)
                await bench.attempts.none_running()


async def test_a_link_that_was_dialled_in_vain_is_closed() -> None:
    async with workbench(reading=False) as bench:
        refusing, good = Refusing(permanent=False), MemoryLink()
        async with running(session_of(bench, MemoryDialer(refusing, good))):
            await good.heard(Heartbeat)
        assert refusing.closed
        assert good.closed


async def test_an_attempt_the_scheduler_believes_here_is_given_back() -> None:
    async with workbench(reading=False) as bench:
        for command in (
            Cancel(attempt=AttemptId(EPOCH, 9), reason="r"),
            Resume(attempt=AttemptId(EPOCH, 9), from_index=3),
        ):
            link = MemoryLink()
            async with running(session_of(bench, MemoryDialer(link))):
                link.say(command)
                ended = await first_end(link)
            assert (ended.attempt.number, ended.cause) == (9, EndCause.CANCELLED)


async def test_an_attempt_kept_but_never_asked_for_is_given_back_after_a_lease() -> None:
    async with workbench(reading=False) as bench:
        first = MemoryLink()
        kept = Welcome(
            session_id="s", epoch=EPOCH, lease_s=0.05, heartbeat_interval_s=60.0, keep=frozenset({AttemptId(EPOCH, 1)})
        )
        second = MemoryLink(kept)
        async with running(session_of(bench, MemoryDialer(first, second))):
            await first.heard(Heartbeat)
            first.say(assign(1))
            async with asyncio.timeout(5):
                while not first.outputs:
                    await asyncio.sleep(0)
            first.cut()
            ended = await first_end(second)
        assert second.registered is not None
        assert [held.attempt for held in second.registered.held] == [AttemptId(EPOCH, 1)]
        assert (ended.attempt.number, ended.cause) == (1, EndCause.CANCELLED)
        assert not bench.attempts.held


async def test_a_tokenizer_that_is_not_ours_is_not_sent() -> None:
    async with workbench(reading=False) as bench:
        link = MemoryLink()
        session = session_of(bench, MemoryDialer(link))
        session.text_source = bench.services.text
        async with running(session):
            link.say(TokenizerWanted(tokenizer_hash="of another model"))
            link.say(TokenizerWanted(tokenizer_hash=bench.services.text.hash))
            chunk: TokenizerChunk = await link.heard(TokenizerChunk)
        assert chunk.tokenizer_hash == bench.services.text.hash


async def test_a_defect_is_not_taken_for_a_broken_stream() -> None:
    class Broken(MemoryLink):
        async def send_control(self, message: object) -> None:
            raise RuntimeError("a defect")

    async with workbench(reading=False) as bench:
        with pytest.raises(RuntimeError, match="a defect"):
            await session_of(bench, MemoryDialer(Broken(), MemoryLink())).run()


async def test_a_release_is_handed_on() -> None:
    async with workbench() as bench:
        link = MemoryLink()
        session = session_of(bench, MemoryDialer(link))
        asked: list[ReleaseKv] = []
        session.on_release_kv = asked.append
        async with running(session):
            command = ReleaseKv(number=4, kv_transfer_params={"of": 1})
            link.say(command)
            async with asyncio.timeout(5):
                while not asked:
                    await asyncio.sleep(0)
        assert asked == [command]


async def test_a_role_that_came_by_itself_goes_to_the_next_scheduler_with_its_age_until_it_is_taken_back() -> None:
    role = AutomaticRole(role=Role.PREFILLING, previous=Role.DECODING, cause="c", reason="r", age_s=7.0)
    async with workbench(reading=False) as bench:
        first, second, third = MemoryLink(), MemoryLink(), MemoryLink()
        async with running(session_of(bench, MemoryDialer(first, second, third))):
            first.say(KeepRole(role=role))
            first.cut()
            await second.heard(Heartbeat)
            second.say(KeepRole(role=None))
            second.cut()
            await third.heard(Heartbeat)
    registered = [each.registered for each in (first, second, third)]
    kept = [each.automatic_role for each in registered if each is not None]
    assert (kept[0], kept[2]) == (None, None)
    assert kept[1] is not None
    assert replace(kept[1], age_s=7.0) == role
    assert kept[1].age_s >= 7.0
