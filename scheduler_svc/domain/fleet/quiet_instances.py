"""The instances of one model that take the prompts of CRITICAL requests only, in turns."""

from __future__ import annotations

from collections import deque

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts

#: Seconds after a CRITICAL request for which instances are kept quiet for the next one.
CRITICAL_MEMORY_S = 60.0
#: A turn is over once no more than this share of the sequences that the instance had is left: the fixed cost of a step
#: would be shared by too few.
_LEAST_LEFT = 0.5


class QuietInstances:
    """Keeps a few instances without prompts of other classes, so that a CRITICAL prompt begins there at once.

    An engine computes the prompts that it has begun to their end, whatever class comes then, and fills what a prompt
    leaves of a step with others.  A quiet instance goes on with the outputs of what it runs.  Its turn begins with what
    is left of its prompts, and then lasts until half of its sequences are over; the next instance by id follows.
    """

    def __init__(self) -> None:
        self._turns: deque[_Turn] = deque()
        self._last_id = ""  # of the instance whose turn began last
        self._critical_at = float("-inf")

    def critical_came(self, now: float) -> None:
        """Note that a CRITICAL request waits."""
        self._critical_at = now

    def wanted(self, now: float) -> bool:
        """Whether a CRITICAL request came recently."""
        return now - self._critical_at < CRITICAL_MEMORY_S

    def take_turns(self, accounts: Accounts, count: int) -> None:
        """Have ``count`` of the instances quiet.  Looks at one turn a call: others are looked at in the next ones."""
        turns = self._turns
        while len(turns) > count:
            turns.popleft().end()
        if turns:
            turn = turns.popleft()
            if turn.over(accounts):
                turn.end()
            else:
                turns.append(turn)
        if len(turns) < count and (account := self._next(accounts)) is not None:
            self._last_id = account.instance_id
            turns.append(_Turn(account))

    def _next(self, accounts: Accounts) -> Account | None:
        """Return the next instance by id that could take a CRITICAL request and has no turn; None if there is none."""
        able = [a for a in accounts if a.free_slots > 0 and not a.quiet]
        later = (a for a in able if a.instance_id > self._last_id)
        return next(later, able[0] if able else None)


class _Turn:
    """One instance's turn to be quiet."""

    __slots__ = ("_account", "_sequences")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._sequences: int | None = None  # of other classes, when its prompts were done; None before
        account.keep_quiet(True)

    def over(self, accounts: Accounts) -> bool:
        """Whether the turn is over: too few sequences are left, or the instance is not among these any more.

        One that had none stays quiet as long as another instance takes prompts.
        """
        account = self._account
        row = accounts.find(account.instance_id)
        if row is None or accounts[row] is not account:
            return True
        if self._sequences is None:
            if len(account.pending) > account.urgent_pending:
                return False
            self._sequences = account.live_not_critical
        if account.live_not_critical > _LEAST_LEFT * self._sequences:
            return False
        return self._sequences > 0 or not accounts.roomy_rows

    def end(self) -> None:
        """Let the instance take all prompts again."""
        self._account.keep_quiet(False)
