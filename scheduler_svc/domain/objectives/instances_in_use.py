"""The instances that a load needs: the cheapest ones that can carry it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts, as_accounts
from scheduler_svc.domain.capacity.figures import Column, Mask
from scheduler_svc.domain.capacity.offered_load import OfferedLoad
from scheduler_svc.domain.objectives.carriers import Carriers

#: Share of what instances can do at most that they are meant to carry, until misses show that it is too much.
CARRIED = 0.75
#: The least that this share falls to, and the most that it rises to where the instances carry so much in time.
LEAST_CARRIED, MOST_CARRIED = 0.4, 0.95
#: The share from then on, by what the instances carry when too many are late or a request needs another one.
LOWERED = 0.95
#: By how much the share rises, per second, whatever the instances carry.
RAISED_PER_S = 2e-4
#: Load, as a share of what the instances can do at most, above which further ones are taken though nobody is late yet:
#: for a while requests that can wait make up for a load above 1.
FULL = 1.1
#: The share in the first ``FIRST_S`` seconds of a load: nothing is known of the instances' speeds, so most are used.
CARRIED_AT_FIRST = 0.5
FIRST_S = 10.0
#: How many times dearer the instances in use have to be than others that would do, for others to be taken.
WORTH_A_CHANGE = 1.25
#: The same for some of them to be left, which takes no other into use.
WORTH_LEAVING = 1.02
#: Seconds for which an instance stays in use after it was last needed.
HOLD_S = 30.0
#: Share of requests that may miss their targets rather than take a further instance into use.
MISSED = 0.0075
#: Seconds until requests that finish tell of a change: those that began before it are done.
LESSON_S = 15.0
#: So many requests, none of them late, show that no more than ``MISSED`` of them are (95 %: the rule of three).
TELLING = 3 / MISSED
_MOST_EXCUSED = 5.0  # requests one after the other
_MOST_COUNTED = 10_000  # instances whose late requests are remembered; those that are gone are among them
_REVIEW_S = 1.0  # between two looks at which instances are needed


class InstancesInUse:
    """Keeps the instances of one model that its load needs: the cheapest that carry it together.

    They carry the load at a share of what they can do at most.  The share falls below what they carry when too many
    requests are late or one needs an instance besides them to meet its targets.  It rises slowly, and faster to what
    they carry while nobody is late; so it adapts to how tight the targets are.  An instance stays in use for ``HOLD_S``
    after it was last needed.  One that was left costs more than another: the time since then is paid for as well, if
    it is used again.
    """

    def __init__(self) -> None:
        self._excused = 0.0  # requests that may miss their targets now
        self._until: dict[str, float] = {}  # by instance id, seconds on the scheduler's clock
        self._used_at: dict[str, float] = {}  # by instance id: when it was in use last, seconds on the clock
        self._age_s = 0.0  # of the load, at the last review
        self._mask: Mask | None = None  # which of ``_mask_of`` are in use; None: to be worked out again
        self._mask_of: Sequence[Account] = ()
        self._needed: Collection[str] = ()  # ids of those that carry the load
        self._carried = CARRIED  # share of what they can do that they are meant to carry
        self._short = False  # whether too many missed their targets, or one needed another instance, since the review
        self._late: dict[str, int] = {}  # by instance id: requests that finished late there until the last review
        self._unpunished = 0.0  # requests that may yet finish late before more instances are taken
        self._in_time = 0  # requests since the last one that was late or needed another instance
        self._learned_at = float("-inf")  # when the share fell last, seconds on the clock
        self._late_at = float("-inf")  # when requests were last found to have finished late
        self._review_at = float("-inf")
        self._reviewed: Sequence[Account] = ()

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._until

    def mask(self, accounts: Sequence[Account]) -> Mask:
        """Return for each of the accounts whether its instance is in use."""
        accounts = as_accounts(accounts)
        whole = accounts.whole
        if self._mask is None or self._mask_of is not whole:
            self._mask = np.array([a.instance_id in self._until for a in whole], dtype=np.bool_)
            self._mask_of = whole
        return self._mask if accounts is whole else self._mask[accounts.rows]

    def take(self, account: Account, now: float, *, risk: float) -> None:
        """Note that a request goes to an instance, which is in use from now on.

        ``risk``: how likely it misses its targets there, [0, 1].
        """
        self._excused = min(max(0.0, self._excused + MISSED - risk), _MOST_EXCUSED)
        self._unpunished = min(self._unpunished + MISSED, _MOST_EXCUSED)
        self._in_time += 1
        if account.instance_id not in self._until:
            self._until[account.instance_id] = now + HOLD_S
            self._mask = None
            self._short = True

    @property
    def excuses(self) -> bool:
        """Whether one more request may miss its targets, with no more than ``MISSED`` of them missing theirs."""
        return self._excused >= 1

    def price_factors(self, accounts: Sequence[Account], now: float) -> Column:
        """Return for each of the accounts by how much its price rises because of the time that it was not in use."""
        return np.array([self._price_factor(a.instance_id, now) for a in accounts])

    def soon_with_capacity(self, accounts: Sequence[Account], tokens: int) -> Accounts:
        """Return those of the instances that are in use and take another request once a prompt there is computed.

        ``tokens``: KV tokens that the request needs.  Those of an instance that lacks them may go to shorter requests
        again and again.
        """
        accounts, in_use = as_accounts(accounts), self._until
        soon = [(row, accounts[row]) for row in sorted(accounts.soon_rows)]
        return accounts.at([row for row, a in soon if a.instance_id in in_use and a.free_tokens >= tokens])

    def review(self, accounts: Sequence[Account], load: OfferedLoad, now: float) -> None:
        """Work out which of these instances are needed, at most once a second, and drop those no longer held.

        ``accounts``: all that can serve the model.
        """
        if now < self._review_at and (
            accounts is self._reviewed or any(a.instance_id in self._until for a in accounts)
        ):
            return
        self._reviewed = accounts
        self._review_at = now + _REVIEW_S
        self._until = {i: until for i, until in self._until.items() if until > now}
        self._mask = None
        age_s = self._age_s = load.age_s(now)
        self._note_use(accounts, now)
        prices = {a.instance_id: a.price_per_s * self._price_factor(a.instance_id, now) for a in accounts}
        carriers = Carriers(accounts, load.of_instances(accounts, now), prices)
        self._count_late(accounts, age_s, now)
        first = age_s < FIRST_S
        if first:
            needed: Sequence[Account] = carriers.with_enough(carriers.among(self._needed), CARRIED_AT_FIRST)
        else:
            needed = self._choose(carriers, now)
        self._short = False
        self._needed = {a.instance_id for a in needed}
        for account in needed:
            self._until[account.instance_id] = now + (FIRST_S if first else HOLD_S)

    def _count_late(self, accounts: Sequence[Account], age_s: float, now: float) -> None:
        """Count the requests that finished late since the last review; too many: the instances carry too much."""
        late = {a.instance_id: a.late for a in accounts}
        more = sum(max(0, n - self._late.get(i, n)) for i, n in late.items())
        self._unpunished -= more
        if more:
            self._late_at, self._in_time = now, 0
        self._late = {**self._late, **late} if len(self._late) < _MOST_COUNTED else late
        if age_s < 2 * FIRST_S or now - self._learned_at < LESSON_S:
            self._unpunished = max(0.0, self._unpunished)  # they ran under what was in use before
        elif self._unpunished < 0:
            self._short, self._unpunished = True, 0.0

    def _note_use(self, accounts: Sequence[Account], now: float) -> None:
        """Note who is in use now.  Of too many instances, those that are gone are forgotten."""
        self._used_at.update((i, now) for i in self._until)
        if len(self._used_at) > _MOST_COUNTED:
            self._used_at = {
                a.instance_id: self._used_at[a.instance_id] for a in accounts if a.instance_id in self._used_at
            }

    def _price_factor(self, instance_id: str, now: float) -> float:
        """Return 1, and more for an instance that was used before and left: the time between is paid for as well.

        That is shared out over the time to come, which is taken to last as long as the load has so far.
        """
        return 1 + (now - self._used_at.get(instance_id, now)) / max(self._age_s, _REVIEW_S)

    def _choose(self, carriers: Carriers, now: float) -> Sequence[Account]:
        """Return those that carry the load from now on: with little reason to change, the ones that did so far."""
        needed: Sequence[Account] = carriers.among(self._needed)
        load = carriers.load_of(needed)
        share = self._carried = self._learn(load, now)
        if self._short or load > FULL:
            most = max(share, load * LOWERED) if load < 1 else share
            grown = carriers.spared(carriers.with_enough(needed, most), most)
            others = carriers.spared(carriers.with_enough((), most), most)
            return others if carriers.price(others) < carriers.price(grown) else grown
        others = carriers.spared(carriers.with_enough((), share), share)
        fewer = carriers.spared(needed, share)
        if carriers.price(others) * WORTH_A_CHANGE < carriers.price(fewer):
            return others
        return fewer if carriers.price(fewer) * WORTH_LEAVING < carriers.price(needed) else needed

    def _learn(self, load: float, now: float) -> float:
        """Return the share to carry.  ``load``: what the instances needed carry now, a share of what they can do."""
        if self._short:
            self._learned_at, self._in_time = now, 0
            return max(LEAST_CARRIED, load * LOWERED) if load <= self._carried else self._carried
        raised = RAISED_PER_S * _REVIEW_S
        if self._in_time >= TELLING and now - max(self._late_at, self._learned_at) >= LESSON_S:
            raised = max(raised, (load - self._carried) * _REVIEW_S / LESSON_S)
        return min(MOST_CARRIED, self._carried + raised)
