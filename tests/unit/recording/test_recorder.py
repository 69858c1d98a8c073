"""What is recorded of requests and instances, in a world of modelled executors."""

from __future__ import annotations

from typing import TypeVar

import pytest

from sage_common.clock import Clock
from scheduler_svc.control.instances.fleet_observer import FleetObserver
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.request import Priority
from scheduler_svc.recording.load_condenser import SAMPLES_KEPT, LoadCondenser
from scheduler_svc.recording.log_lines import InstanceLine, Line, LoadLine, RequestLine
from scheduler_svc.recording.recorder import HASHES_KEPT, Recorder, coarser
from tests.unit.control.world import World

Kind = TypeVar("Kind", bound=Line)


class RecordedWorld(World):
    """A world with a recorder, whose lines are kept."""

    def __init__(self, *, tenants: bool = True) -> None:
        self.lines: list[Line] = []

        def recorder(clock: Clock) -> FleetObserver:
            self.recorder = Recorder(clock, self, tenants=tenants)
            return self.recorder

        super().__init__(observe_fleet=recorder)
        self.plane.requests.on_end(self.recorder.request_ended)

    def put(self, line: Line) -> None:
        self.lines.append(line)

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [line for line in self.lines if isinstance(line, kind)]


async def test_a_finished_request() -> None:
    async with RecordedWorld() as world:
        world.add("e1")
        await world.advance(1.0)
        await world.submit("secret id", prompt=7, max_tokens=3, priority=Priority.HIGH, ttft_target_s=2.0, session="s")
        await world.advance(1.0)
        [line] = world.of(RequestLine)
    assert (line.arrival_s, line.prompt_tokens, line.output_tokens, line.max_tokens) == (1.0, 7, 3, 3)
    assert (line.priority, line.ttft_target_s, line.deadline_s, line.session) == ("HIGH", 2.0, None, "s")
    assert (line.end, line.finish_reason, line.instance, line.policy, line.attempts) == (
        *("finished", "length"),
        *("e1", "fifo", 1),
    )
    assert line.decided_s is not None
    assert line.first_token_s is not None
    assert line.last_token_s is not None
    assert line.arrival_s <= line.decided_s < line.first_token_s < line.last_token_s <= line.ended_s < 2.0
    assert "secret" not in repr(line)


async def test_the_wait_that_was_told_is_the_first_one() -> None:
    async with RecordedWorld() as world:
        world.add("e1", max_running=1)
        await world.advance(1.0)
        await world.submit("runs", max_tokens=20)
        waits = await world.submit("waits", max_tokens=2)
        told = world.plane.intake.expected_wait_s(waits.live)
        await world.advance(5.0)
        assert world.plane.intake.expected_wait_s(waits.live) == 0
        runs, waited = world.of(RequestLine)
    assert told > 0
    assert (runs.expected_wait_s, waited.expected_wait_s) == (None, told)


async def test_a_request_that_never_ran() -> None:
    async with RecordedWorld() as world:
        world.add("e1", max_running=1)
        await world.submit("long", max_tokens=1000)
        await world.submit("too late", deadline_s=0.5, max_tokens=1000)
        await world.submit("too late as well", deadline_s=0.5, max_tokens=1000)
        await world.advance(1.0)
        line = world.of(RequestLine)[-1]
    assert (line.end, line.deadline_s, line.output_tokens, line.instance) == ("expired", 0.5, 0, "")
    assert (line.decided_s, line.first_token_s) == (None, None)


@pytest.mark.parametrize("tenants", [True, False])
async def test_tenants_are_left_out_where_they_are_not_wanted(tenants: bool) -> None:
    async with RecordedWorld(tenants=tenants) as world:
        world.add("e1")
        await world.submit("r", max_tokens=1)
        await world.advance(1.0)
        assert [line.tenant for line in world.of(RequestLine)] == ["t" if tenants else ""]


async def test_an_instance_that_joins_changes_its_role_and_leaves() -> None:
    async with RecordedWorld() as world:
        world.add("e1")
        await world.advance(1.2)
        world.plane.scheduler.set_role("e1", InstanceRole.HYBRID)
        await world.advance(1.0)
        world.executors["e1"].crash()
        await world.advance(10.0)
        lines = world.of(InstanceLine)
    assert [(line.instance, line.state, line.role) for line in lines] == [
        ("e1", "ready", "general"),
        ("e1", "ready", "hybrid"),
        ("e1", "lost", "hybrid"),
    ]
    assert (lines[0].max_running, lines[0].kv_capacity_tokens, lines[0].max_model_len) == (4, 100_000, 4096)


async def test_load_is_written_about_once_a_second() -> None:
    async with RecordedWorld() as world:
        world.add("e1")
        await world.advance(10.2)
        lines = world.of(LoadLine)
    assert 9 <= len(lines) <= 11
    assert (lines[1].heartbeats, lines[1].shortest_gap_s, lines[1].longest_gap_s) == (2, 0.5, 0.5)


def test_samples_are_spread_over_those_that_came() -> None:
    condenser = LoadCondenser("e1")
    condenser.add(report(), 0.0)
    for beat in range(8):
        condenser.add(report(*(beat * 16 + step + 1 for step in range(16))), beat / 10)
    line = condenser.add(report(), 1.0)
    assert line is not None
    running = [sample[2] for sample in line.samples]
    assert len(running) == SAMPLES_KEPT
    assert running == list(range(1, 129, 4))


def report(*running: int) -> LoadReport:
    return LoadReport(
        number=1,
        last_assign=0,
        running=0,
        waiting=0,
        unfinished=0,
        kv_used_tokens=0,
        iterations=0,
        samples=tuple(
            IterationSample(prefill_tokens=0, decode_tokens=n, running=n, kv_used_tokens=0, elapsed_s=0.01)
            for n in running
        ),
    )


def test_long_prompts_keep_fewer_hashes_each_over_its_whole_prefix() -> None:
    assert coarser((), 16) == ((), 0)
    assert coarser((1, 2, 3), 16) == ((1, 2, 3), 16)
    hashes, block_tokens = coarser(tuple(range(2 * HASHES_KEPT + 5)), 16)
    assert block_tokens == 48
    assert list(hashes[:3]) == [2, 5, 8]
    assert len(hashes) <= HASHES_KEPT
