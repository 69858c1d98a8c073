"""A reservation follows the output of a request that turns out longer than predicted."""

from __future__ import annotations

from tests.unit.control.world import World

PROMPT = 10
SHORT, LONG = 130, 250  # both count as of one kind: what may be long is predicted by what was short


async def test_a_reservation_follows_the_output() -> None:
    async with World() as w:
        w.add("a", max_running=64)
        for n in range(25):
            await w.submit(f"short{n}", prompt=PROMPT, max_tokens=SHORT)
        await w.advance(10.0)
        long = await w.submit("long", prompt=PROMPT, max_tokens=LONG)
        await w.advance(0.1)
        account = w.plane.scheduler.instance("a").account
        [reservation] = account.reservations.values()
        at_first = reservation.tokens
        assert PROMPT + SHORT <= at_first < PROMPT + LONG
        grown = set()

        while account.reservations:
            assert PROMPT + len(long.live.output) <= reservation.tokens
            grown.add(reservation.tokens)
            await w.advance(0.05)

    assert max(grown) >= PROMPT + LONG
    assert len(grown) <= 1 + (LONG - SHORT) // 16 + 1, "not with each token"
