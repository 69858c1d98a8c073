"""Places for files on their way: one caller leaves the others some."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from sage_client import LimitReachedError, TenantLimitError
from sage_gateway.batches import transfers
from sage_gateway.batches.transfers import Transfers


def test_one_caller_leaves_the_others_places() -> None:
    places = Transfers()
    with ExitStack() as taken:
        for _ in range(transfers.CALLER_LIMIT):
            taken.enter_context(places.one("greedy"))
        with pytest.raises(TenantLimitError), places.one("greedy"):
            pass
        with places.one("other"):
            pass
    with places.one("greedy"):
        pass


def test_all_callers_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "LIMIT", 2)
    places = Transfers()
    with places.one("a"), places.one("b"), pytest.raises(LimitReachedError), places.one("c"):
        pass
