"""A scheduler's decisions with nothing kept from one decision to the next, and without any shorter way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from scheduler_svc.domain import backfilling, scheduling_pass
from scheduler_svc.domain.capacity.accounts import Accounts, SomeAccounts
from scheduler_svc.domain.capacity.figures import Column, Figures, Rows
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.objectives import cheapest, earliest_finish, least_target_used, picker
from scheduler_svc.domain.placement import chooser
from scheduler_svc.domain.placement.room import MostRoom
from scheduler_svc.domain.prefixes.holder_bits import HolderBits
from scheduler_svc.domain.scheduler import Scheduler


def _figures(accounts: Accounts) -> Figures:
    return Figures(list(accounts))


def _open_rows(accounts: Accounts) -> list[int]:
    return [row for row, a in enumerate(accounts) if a.urgent_limit > 0]


def _roomy_rows(accounts: Accounts) -> list[int]:
    return [row for row, a in enumerate(accounts) if a.prompt_limit_leaving_reserve > 0]


def _soon_rows(accounts: Accounts) -> list[int]:
    return [row for row, a in enumerate(accounts) if a.full_prefill_s > 0 and a.free_slots > 0]


def _why_full(accounts: Accounts) -> Any:
    return np.array([[a.free_slots, a.free_tokens, a.full_prefill_s] for a in accounts], dtype=np.float64).T


def _pick_of(
    each: Figures,
    scores: Column,
    rows: Rows | None,
    *,
    tolerance: float = picker.TIME_TOLERANCE_S,
    relative: float = picker.RELATIVE_TOLERANCE,
    held: Column | None = None,
) -> int:
    """Look for the best score, and for the best of those as good as equal to it."""
    among: Sequence[int] = range(len(scores)) if rows is None else [int(row) for row in rows]
    best = min(float(scores[row]) for row in among)
    near = [row for row in among if float(scores[row]) <= best + best * relative + tolerance]
    return min(near, key=lambda row: (0.0 if held is None else -float(held[row]), float(each.turn[row])))


_column = HolderBits.column


def _new_column(bits: HolderBits, held: int, tokens: int, accounts: Accounts) -> Column:
    bits._columns.clear()
    bits._places.clear()
    return _column(bits, held, tokens, accounts)


def _patches() -> Iterator[Any]:
    for kind in (Accounts, SomeAccounts):
        yield patch.multiple(
            kind,
            figures=property(_figures),
            open_rows=property(_open_rows),
            roomy_rows=property(_roomy_rows),
            soon_rows=property(_soon_rows),
            few_open=lambda accounts, most, *, leaving_reserve: None,
            why_full=_why_full,
            _with_why_full=_figures,
        )
    yield patch.multiple(Pool, serves_alike=lambda *_: False, serves_all=lambda *_: False)
    yield patch.multiple(
        scheduling_pass,
        _nobody_goes=lambda *_: False,
        all_can_serve_waiting=lambda *_: False,
    )
    yield patch.multiple(
        backfilling,
        all_can_serve_waiting=lambda *_: False,
        all_can_serve=lambda *_: False,
        all_can_serve_a_leg=lambda *_: False,
    )
    yield patch.object(chooser, "has_way", lambda *_: False)
    yield patch.object(least_target_used._Runs, "_is_picked", lambda *_: False)
    yield patch.object(cheapest, "all_crowded", lambda *_, headroom: False)
    yield patch.object(MostRoom, "lacks", lambda *_: False)
    yield patch.object(HolderBits, "column", _new_column)
    for module in (cheapest, earliest_finish, least_target_used, picker):
        yield patch.object(module, "pick_of", _pick_of)


@contextmanager
def from_scratch(scheduler: Scheduler) -> Iterator[None]:
    """Have a scheduler work every figure out again, look at every instance, and take no shorter way."""
    for instance in scheduler.instances():
        instance.account._recount()
    for pool in scheduler._registry.pools():
        if not pool._stale:  # else it is about to be, and until then its pace is to be measured anew
            pool._refresh()
    with ExitStack() as stack:
        for each in _patches():
            stack.enter_context(each)
        yield
