"""The instances that could serve a request and had no capacity for it, written out only when someone asks."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import NO_ACCOUNTS, Accounts


class FullInstances:
    """Those of the able instances that were not offered, with the figures of then that say why.

    In a busy fleet they are nearly all, so the figures of all able ones are copied in one go; which of these were not
    offered is worked out when the first is read.
    """

    __slots__ = ("_accounts", "_count", "_figures", "_offered")

    def __init__(self, able: Accounts, offered: Accounts) -> None:
        """Keep the figures of now.  ``offered``: some of ``able``."""
        self._accounts = able
        self._figures = able.why_full()
        self._offered: Accounts | None = offered  # None once only those that were not offered are left here
        self._count = len(able) - len(offered)

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return len(self) > 0

    def account(self, row: int) -> Account:
        """Return the account in a row."""
        self._leave_out_offered()
        return self._accounts[row]

    def figures(self, row: int) -> tuple[int, int, float]:
        """Return free slots, free KV tokens and the seconds of prefill that kept the request out, as they were."""
        self._leave_out_offered()
        free_slots, free_tokens, prefill_s = self._figures[:, row].tolist()
        return int(free_slots), int(free_tokens), prefill_s

    def head(self, count: int) -> FullInstances:
        """Return the first ``count`` of them alone; it keeps nothing of the others."""
        self._leave_out_offered()
        found = FullInstances(NO_ACCOUNTS, NO_ACCOUNTS)
        found._count = min(count, self._count)
        found._accounts = Accounts(self._accounts[: found._count])
        found._figures = self._figures[:, : found._count].copy()
        found._offered = None
        return found

    def _leave_out_offered(self) -> None:
        if self._offered is not None:
            rows = self._accounts.rows_without(self._offered)
            self._accounts, self._figures, self._offered = self._accounts.take(rows), self._figures[:, rows], None


#: Where every able instance is offered.
NOTHING_FULL = FullInstances(NO_ACCOUNTS, NO_ACCOUNTS)
