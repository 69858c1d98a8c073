"""Tells an instance whose engine may have stopped."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account

#: Seconds, and times as long as they were predicted to take, by which prompts are late before they are long overdue.
_OVERDUE_S, _OVERDUE_TIMES = 0.5, 2.0


def is_overdue(account: Account, now: float) -> bool:
    """Whether an instance has prompts that should have been computed long ago: its engine may have stopped."""
    pending = account.pending
    return bool(pending.prompts) and now - pending.busy_until > max(_OVERDUE_S, _OVERDUE_TIMES * pending.seconds)
