"""An attempt's story is told by the instance that runs it, and by nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.pairs import PairState
from tests.unit.control.handoff_world import PdWorld
from tests.unit.control.world import World, expected

Message = Callable[[AttemptTable, str, int], object]


def _finished(number: int) -> AttemptEnd:
    return AttemptEnd(attempt_number=number, cause=EndCause.FINISHED, finish_reason="stop", total_tokens=0)


MESSAGES: dict[str, Message] = {
    "accepted": lambda assignments, sender, number: assignments.accepted(sender, number),
    "rejected": lambda assignments, sender, number: assignments.rejected(sender, number, "full", ""),
    "tokens": lambda assignments, sender, number: assignments.tokens(sender, number, 0, [999], "?", None),
    "columns": lambda assignments, sender, number: assignments.columns(
        sender, OutputColumns([number], [0], [], [1], [999], "?")
    ),
    "ended": lambda assignments, sender, number: assignments.ended(sender, _finished(number)),
}


@pytest.mark.parametrize("kind", MESSAGES)
async def test_what_another_instance_says_of_an_attempt_is_dropped_counted_and_logged(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with World() as world:
        world.add("owner")
        reader = await world.submit("r1")
        await world.advance(0.005)
        world.add("other")
        assignments = world.plane.attempts
        (assignment,) = assignments.on_instance("owner")
        MESSAGES[kind](assignments, "other", assignment.number)
        assert not assignment.accepted
        assert assignments.find(assignment.number) is assignment
        assert assignments.foreign == 1
        assert "other sent a message about attempt" in caplog.text
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert reader.instances == ["owner"]
        assert assignments.foreign == 1


async def test_an_executor_that_goes_on_about_it_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        world.add("owner")
        await world.submit("r1")
        await world.advance(0.005)
        (assignment,) = world.plane.attempts.on_instance("owner")
        for _ in range(1000):
            MESSAGES["tokens"](world.plane.attempts, "other", assignment.number)
        assert world.plane.attempts.foreign == 1000
        assert caplog.text.count("other sent a message about attempt") == 10


async def test_nobody_else_ends_the_warm_up_of_a_pair() -> None:
    async with PdWorld() as world:
        world.add_pd("p", InstanceRole.PREFILLING)
        world.add_pd("d", InstanceRole.DECODING)
        await world.advance(0.11)
        pairs = world.plane.scheduler.pairs()
        assert [pair.state for pair in pairs] == [PairState.WARMING]
        for number in range(1, 10):
            world.plane.attempts.ended("d", AttemptEnd(attempt_number=number, cause=EndCause.FAILED, message="no"))
        assert [pair.state for pair in pairs] == [PairState.WARMING]
        await world.advance(1)
        assert [pair.state for pair in pairs] == [PairState.USABLE]
