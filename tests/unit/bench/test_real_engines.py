"""The benchmark of policies on real engines: its load, what becomes of an answer, its file and its table."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.vllm.settings import VllmSettings
from sage_client import AsyncClient, SageError
from sage_simulator.traced_request import TracedRequest
from tests.bench.engines import Engine, with_engine_args
from tests.bench.policies.traffic import Recording, Traffic
from tests.bench.real_engines import run_file
from tests.bench.real_engines.answer import Answer, answer
from tests.bench.real_engines.class_table import class_table
from tests.bench.real_engines.load_run import LoadRun, play, saturation
from tests.bench.real_engines.tables import policy_table
from tests.bench.real_engines.window import MOST_OUTPUT, MOST_PROMPT, prompts, window

REQUEST = TracedRequest(arrival_s=0.0, prompt_tokens=4, output_tokens=3, ttft_target_s=1.0, tpot_target_s=0.1)
GOOD = Answer(
    priority="NORMAL", instance="a", ttft_s=0.1, tpot_s=0.01, in_target=True, output_tokens=1_000_000, cost=0.5
)
RUN = LoadRun(begun="2026-01-01T00:00:00+00:00", turn=1, load=0.5, rate=2.0, policy="fifo", answers=[GOOD, GOOD])


class Failing:
    """A client whose requests are all refused."""

    events: tuple[Any, ...] = ()

    async def generate(self, **_: Any) -> AsyncIterator[Any]:
        for event in self.events:
            yield event
        raise SageError("full")


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    """A recorded trace whose lengths are beyond what the engines take."""
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"2023-11-16 18:00:{second:02d}.0000000,{1_000 + 100 * second},2000" for second in range(60)]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(lines) + "\n")
    return Traffic(name="trace", source=Recording(path=path))


def test_a_window_fits_into_the_context_and_is_the_same_for_every_policy(traffic: Traffic) -> None:
    found = window(traffic, "mixed", rate=10.0, duration_s=6.0, seed=3)
    assert len(found) == 60
    assert found == window(traffic, "mixed", rate=10.0, duration_s=6.0, seed=3)
    assert max(each.prompt_tokens for each in found) == MOST_PROMPT
    assert {each.output_tokens for each in found} == {MOST_OUTPUT}
    assert prompts(found, "1/fifo") != prompts(found, "1/priority"), "nothing is in a prefix cache"
    assert [len(each) for each in prompts(found, "1/fifo")] == [each.prompt_tokens for each in found]


async def test_a_refused_request_is_not_in_target_and_has_no_times() -> None:
    found = await answer(cast(AsyncClient, Failing()), REQUEST, [1, 2, 3, 4])
    assert (found.in_target, found.ttft_s, found.tpot_s, found.instance) == (False, None, None, "")


async def test_saturation_refuses_to_be_measured_by_requests_that_fail() -> None:
    with pytest.raises(RuntimeError, match="8 of 8 requests failed"):
        await saturation(cast(AsyncClient, Failing()), [REQUEST] * 8, [[1]] * 8)


def test_runs_are_added_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert run_file.read(path) == []
    other = replace(RUN, turn=2, answers=[replace(GOOD, ttft_s=None, tpot_s=None, in_target=False)])
    for each in (RUN, other):
        run_file.add(path, each)
    assert run_file.read(path) == [RUN, other]


def lines(table: str) -> list[str]:
    """Return the lines of a table without what lines its columns up."""
    return [" ".join(line.split()) for line in table.splitlines()]


def test_a_policy_is_shown_beside_fifo_on_the_same_turns() -> None:
    half = replace(RUN, policy="adaptive", answers=[GOOD, replace(GOOD, instance="b", ttft_s=0.4, in_target=False)])
    alone = replace(half, turn=2)
    header, _, fifo, adaptive = lines(policy_table([half, alone, RUN]))
    assert header.startswith("| load | policy | in target, %")
    assert fifo == "| 0.5 | `fifo` | 100.0 | - | 0.10 / 0.10 | 10 / 10 | 2 | 0.500 | 2 in 1 turns, 0 left out |"
    assert adaptive.startswith("| 0.5 | `adaptive` | 50.0 | -50.0 (-50.0 to -50.0) | 0.10 / 0.40 | 10 / 10 | 2 / 2 |")


def test_first_tokens_are_told_by_class() -> None:
    urgent = replace(GOOD, priority="CRITICAL", ttft_s=0.2, in_target=False)
    _, _, critical, normal = lines(class_table([replace(RUN, answers=[GOOD, urgent, GOOD])]))
    assert critical == "| 0.5 | `fifo` | CRITICAL | 0.0 | 0.200 / 0.200 / 0.200 | 1 |"
    assert normal == "| 0.5 | `fifo` | NORMAL | 100.0 | 0.100 / 0.100 / 0.100 | 2 |"


def test_an_engine_takes_further_arguments_of_vllm() -> None:
    engine = with_engine_args(small_engine(), {"long_prefill_token_threshold": 64})
    assert engine.settings.vllm.engine_args == {"load_format": "dummy", "long_prefill_token_threshold": 64}
    assert any("long_prefill_token_threshold" in flag for flag in engine.executor_flags)


def small_engine() -> Engine:
    settings = EngineSettings(
        kind="vllm", model=ModelSettings(model="m"), vllm=VllmSettings(engine_args={"load_format": "dummy"})
    )
    return Engine(settings=settings, start_timeout_s=1.0)


def test_runs_that_the_machine_disturbed_are_left_out() -> None:
    bad = replace(RUN, turn=2, late_s=0.3, answers=[replace(GOOD, in_target=False)])
    assert (bad.disturbed, RUN.disturbed) == (True, False)
    _, _, fifo = lines(policy_table([RUN, bad]))
    assert fifo.startswith("| 0.5 | `fifo` | 100.0 |")
    assert fifo.endswith("| 2 in 1 turns, 1 left out |")
    _, _, fifo = lines(policy_table([bad]))
    assert fifo == "| 0.5 | `fifo` | - | - | - | - | - | - | all 1 turns left out |"


async def test_a_run_says_how_late_its_requests_were_sent() -> None:
    requests = [replace(REQUEST, arrival_s=0.0), replace(REQUEST, arrival_s=0.05)]

    class Busy(Failing):
        def generate(self, **options: Any) -> AsyncIterator[Any]:
            time.sleep(0.2)  # the loop does not run
            return super().generate(**options)

    answers, late_s = await play(cast(AsyncClient, Busy()), requests, [[1], [1]])
    assert len(answers) == 2
    assert late_s >= 0.07, "the second one was due 0.15 s before it was sent"
