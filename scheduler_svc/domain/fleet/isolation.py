"""The one instance of a model that is kept for a quarantined request."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.request import RequestKey


class Isolation:
    """Keeps at most one instance of a model closed for one quarantined request, so that the request runs there alone.

    The instance takes nothing new from the moment it is chosen.  Once what it runs is over, it is given to the request,
    and it opens again when the request has left it.
    """

    def __init__(self) -> None:
        self.account: Account | None = None
        self.key: RequestKey | None = None

    def keep(self, account: Account, key: RequestKey) -> None:
        """Close an instance for a request, and open the one that was closed before."""
        if self.account is not account:
            self.open()
            account.close(True)
        self.account, self.key = account, key

    def open(self) -> None:
        """Give the instance back to all requests; does nothing if none is closed."""
        if self.account is not None:
            self.account.close(False)
        self.account = self.key = None

    def in_use(self, accounts: Sequence[Account], waiting: RequestKey | None) -> bool:
        """Return whether the instance is still needed: its request runs there, or waits for it as ``waiting``."""
        account = self.account
        if account is None or account not in accounts:
            return False
        return self.key == waiting or any(r.key == self.key for r in account.reservations.values())
