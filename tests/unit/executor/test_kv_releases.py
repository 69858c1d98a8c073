"""ReleaseKv is answered once, whatever the engine does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.runtime import kv_releases
from executor_svc.runtime.engine_port import EngineError, JsonValue
from executor_svc.runtime.kv_releases import KvReleases
from executor_svc.runtime.messages.commands import ReleaseKv
from executor_svc.runtime.messages.reports import KvReleased


class Releaser(SimulatedEngine):
    """An engine of which only ``release_kv`` counts."""

    def __init__(self, outcome: bool | Exception | None) -> None:
        super().__init__(ModelSettings(model="sim"), SimulatedSettings())
        self._outcome = outcome  # None: never
        self.asked: list[Mapping[str, JsonValue]] = []

    async def release_kv(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        self.asked.append(kv_transfer_params)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        if self._outcome is None:
            await asyncio.Event().wait()
        return bool(self._outcome)


async def answers_of(releases: KvReleases, answers: list[KvReleased], *numbers: int) -> list[KvReleased]:
    for number in numbers:
        releases.release(ReleaseKv(number=number, kv_transfer_params={"of": number}))
    async with asyncio.timeout(5):
        while len(answers) < len(numbers):
            await asyncio.sleep(0)
    return answers


@pytest.mark.parametrize(
    ("outcome", "released", "message"),
    [
        (True, True, ""),
        (False, False, "could not be reached"),
        (EngineError("unreadable"), False, "unreadable"),
        (ZeroDivisionError("a defect"), False, "a defect"),
    ],
)
async def test_the_answer_says_how_it_went(outcome: bool | Exception, released: bool, message: str) -> None:
    answers: list[KvReleased] = []
    releases, engine = KvReleases(answers.append), Releaser(outcome)
    releases.serve(engine)
    [answer] = await answers_of(releases, answers, 7)
    assert (answer.number, answer.released) == (7, released)
    assert message in answer.message
    assert engine.asked == [{"of": 7}]


async def test_an_engine_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_releases, "RELEASE_TIMEOUT_S", 0.01)
    answers: list[KvReleased] = []
    releases = KvReleases(answers.append)
    releases.serve(Releaser(None))
    [answer] = await answers_of(releases, answers, 1)
    assert not answer.released


async def test_before_the_engine_is_up_the_answer_is_no() -> None:
    answers: list[KvReleased] = []
    [answer] = await answers_of(KvReleases(answers.append), answers, 1)
    assert (answer.released, answer.message) == (False, "the engine is not up yet")


async def test_beyond_the_bound_the_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_releases, "MAX_CONCURRENT", 3)
    answers: list[KvReleased] = []
    releases = KvReleases(answers.append)
    releases.serve(Releaser(None))
    for number in range(5):
        releases.release(ReleaseKv(number=number, kv_transfer_params={}))
    assert [answer.number for answer in answers] == [3, 4]
    await releases.stop()


async def test_a_new_session_gets_no_answers_to_questions_of_an_old_one() -> None:
    answers: list[KvReleased] = []
    releases = KvReleases(answers.append)
    releases.serve(Releaser(None))
    releases.release(ReleaseKv(number=1, kv_transfer_params={}))
    await asyncio.sleep(0)
    releases.forget()
    await releases.stop()
    assert answers == []
