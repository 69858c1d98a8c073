"""The instances of one model that take the prompts of CRITICAL requests only, in turns."""

from __future__ import annotations

from collections import deque

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts

#: Seconds after a CRITICAL request for which instances are kept quiet for the next one.
CRITICAL_MEMORY_S = 60.0
#: Share of the sequences that a quiet instance had: once no more are left, the next instance gets no further prompts.
_NEXT_FROM = 0.75
#: The same: a turn is over at the latest once no more are left, as they would be too few to share a step's fixed cost.
_LEAST_LEFT = 0.5


#: Slowest by fastest, of instances that count as equally fast.
_ALIKE = 1.5


def quiet_ones(accounts: Accounts, per_quiet_one: int) -> int:
    """Return how many instances to keep quiet: one of every ``per_quiet_one``, where all are about equally fast.

    Elsewhere a turn of the fastest would cost much of what the fleet can do, and CRITICAL requests, which go where
    their first token comes first, meet the shortest steps there anyway.
    """
    count = len(accounts) // per_quiet_one
    if not count:
        return 0
    fastest_s, slowest_s = accounts.computed_token_range_s
    return count if slowest_s <= _ALIKE * fastest_s else 0


class QuietInstances:
    """Keeps a few instances without prompts of other classes, so that a CRITICAL prompt begins there at once.

    An engine computes the prompts that it has begun to their end, whatever class comes then, and fills what a prompt
    leaves of a step with others.  A quiet instance goes on with the outputs of what it runs.  Once three quarters of
    its sequences are left, the next instance by id gets no further prompts.  The turn passes to that one when its
    prompts are done, or when half of the sequences are left.
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
            turn = self._looked_at(turns.popleft(), accounts)
            if turn is not None:
                turns.append(turn)
        if len(turns) < count and (turn := self._begin(accounts)) is not None:
            turns.append(turn)

    def give_way(self, able: Accounts) -> bool:
        """End a turn if only quiet instances take prompts of a request: one that waits for them might wait for ever.

        ``able``: instances that can serve the request.  Returns whether one of them takes all prompts again.
        """
        if not all(a.quiet or a.closed for a in able):
            return False
        for turn in self._turns:
            if turn.among(able):
                self._turns.remove(turn)
                turn.end()
                return True
            if turn.follower is not None and turn.follower.among(able):
                turn.follower.end()
                turn.follower = None
                return True
        return False

    def _looked_at(self, turn: _Turn, accounts: Accounts) -> _Turn | None:
        """Return a turn that goes on, the one that took its place, or None if there is none."""
        if not turn.among(accounts):
            turn.end()
            return None
        if turn.follower is not None and not turn.follower.among(accounts):
            turn.follower.end()
            turn.follower = None
        if turn.follower is None and turn.left(accounts) <= _NEXT_FROM:
            turn.follower = self._begin(accounts)
        follower = turn.follower
        if follower is not None and (follower.settled() or turn.left(accounts) <= _LEAST_LEFT):
            turn.follower = None
            turn.end()
            return follower
        return turn

    def _begin(self, accounts: Accounts) -> _Turn | None:
        """Begin the turn of the next instance; None if there is none."""
        account = self._next(accounts)
        if account is None:
            return None
        self._last_id = account.instance_id
        return _Turn(account)

    def _next(self, accounts: Accounts) -> Account | None:
        """Return the next instance by id that could take a CRITICAL request and has no turn; None if there is none."""
        able = [a for a in accounts if a.free_slots > 0 and not a.quiet and not a.closed]
        later = (a for a in able if a.instance_id > self._last_id)
        return next(later, able[0] if able else None)


class _Turn:
    """One instance's turn to be quiet."""

    __slots__ = ("_account", "_sequences", "follower")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._sequences: int | None = None  # of other classes, when its prompts were done; None before
        self.follower: _Turn | None = None  # begun, to take this one's place once it is quiet
        account.keep_quiet(True)
        self.settled()

    def among(self, accounts: Accounts) -> bool:
        """Whether the instance is one of these."""
        row = accounts.find(self._account.instance_id)
        return row is not None and accounts[row] is self._account

    def settled(self) -> bool:
        """Whether the prompts of other classes that were there are done; counts the sequences when they are."""
        account = self._account
        if self._sequences is None and len(account.pending) <= account.pending.urgent:
            self._sequences = account.live_not_critical
        return self._sequences is not None

    def left(self, accounts: Accounts) -> float:
        """Return the share of its sequences that is left, 0 to 1.

        An instance that had none counts as full as long as another one takes prompts.
        """
        if not self.settled():
            return 1.0
        if not self._sequences:
            return 1.0 if accounts.roomy_rows else 0.0
        return self._account.live_not_critical / self._sequences

    def end(self) -> None:
        """Let the instance take all prompts again, and its follower's."""
        self._account.keep_quiet(False)
        if self.follower is not None:
            self.follower.end()
