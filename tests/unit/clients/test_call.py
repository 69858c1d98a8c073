"""How long a call goes on looking for a scheduler."""

from __future__ import annotations

from tests.unit.clients.test_session_outbox import call


async def test_breaks_are_counted_anew_where_a_standby_answers_in_between() -> None:
    """A leader that died and a standby that waits for its lease take turns, for as long as the lease lasts."""
    looking = call()
    for _ in range(50):
        assert looking.may_wait_for_leader()
        assert looking.count_break(attempts=2)


async def test_without_anybody_breaks_are_counted_to_the_limit() -> None:
    looking = call()
    assert [looking.count_break(attempts=2) for _ in range(3)] == [True, True, False]
