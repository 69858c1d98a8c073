"""What the scheduler says of its instances."""

from __future__ import annotations

from typing import cast

import sage_client as sage
from sage_fleet.scheduler_client import instances_of


class Answers:
    """A client that gets a view without instances, or no answer."""

    def __init__(self, error: sage.SageError | None = None) -> None:
        self._error = error

    async def list_instances(self) -> Answers:
        if self._error is not None:
            raise self._error
        return self

    instances = ()


def client(error: sage.SageError | None = None) -> sage.AsyncClient:
    return cast(sage.AsyncClient, Answers(error))


async def test_a_scheduler_without_instances_is_told_from_one_that_does_not_answer() -> None:
    assert await instances_of(client()) == {}
    assert await instances_of(client(sage.UnavailableError("no scheduler"))) is None
