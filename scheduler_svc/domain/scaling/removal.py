"""Which instances go first when there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from scheduler_svc.domain.instance import Instance

#: By how many times what instances cost for their work may differ while they count as equal: paces are measured.
ALIKE = 1.5
LEAST_STEP = -1_000  # of an instance that costs nothing: it goes last


def removal_order(starting: Sequence[Instance], serving: Sequence[Instance]) -> list[Instance]:
    """Return the instances, the first to go first.

    Those that start serve nobody.  Of the others, the dearest for what it does goes first, and among equal ones the
    one that runs least: its drain is over soonest.
    """
    youngest_first = sorted(starting, key=lambda i: (-i.start_began_at, i.instance_id))
    return [*youngest_first, *sorted(serving, key=_worth)]


def _worth(instance: Instance) -> tuple[int, int, str]:
    account = instance.account
    token_s = account.load_pace.base_s / (account.max_running or 1) + account.load_pace.running_s
    price = instance.spec.price_per_hour * token_s
    step = round(log(price) / log(ALIKE)) if price > 0 else LEAST_STEP
    return -step, account.live, instance.instance_id
