"""The instances that a load needs: the cheapest ones that can carry it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts, as_accounts
from scheduler_svc.domain.capacity.figures import Column, Mask
from scheduler_svc.domain.capacity.offered_load import BRIEF_S, OfferedLoad
from scheduler_svc.domain.objectives.carriers import Carriers
from scheduler_svc.domain.objectives.miss_budget import MissBudget
from scheduler_svc.domain.objectives.overdue import is_overdue
from scheduler_svc.domain.objectives.peak_load import MEMORY_S, PeakLoad

#: Share of what instances can do at most that they are meant to carry in a peak, until misses show that it is too much.
#: For a while, requests that can wait make up for more than 1.
CARRIED = 1.1
#: The least that this share falls to.
LEAST_CARRIED = 0.4
#: The share from then on, by what the instances carry when too many are late or a request needs another one.
LOWERED = 0.95
#: By how much the share rises, per second, whatever the instances carry.
RAISED_PER_S = 2e-4
#: A peak is taken to be this many times the load at least that is usual, or the present one where that is lower.
LEAST_PEAK = 1.25
#: Share of the misses allowed after which further instances are taken: more are under way when the first have ended.
SPENT = 0.5
#: How many times more than that a peak may be before further instances are taken though few are late: it may pass.
PASSES = 1.25
#: How many times dearer the instances in use have to be than others that would do, for others to be taken.
WORTH_A_CHANGE = 1.25
#: The same before the peaks of the load are known: those that others would save may come yet.
WORTH_AN_EARLY_CHANGE = 2.0
#: Seconds for which an instance stays in use after it was last needed.
HOLD_S = 30.0
#: Seconds until requests that finish tell of a change: those that began before it are done.
LESSON_S = 15.0
#: Share of what instances can do in a second that they are meant to carry of the requests that come at the very first.
AT_ONCE = 0.5
#: Seconds of a load in which its rates are not known well: any peak counts, and what is late teaches nothing.
YOUNG_S = 30.0
_MOST_COUNTED = 10_000  # instances whose late requests are remembered; those that are gone are among them
_REVIEW_S = 1.0  # between two looks at which instances are needed
_FIRST_REVIEWS_S = 0.1  # the same in the first second of a load


class InstancesInUse:
    """Keeps the instances of one model that its load needs: the cheapest that carry it together.

    They carry the latest peak of the load at a share of what they can do at most.  The share falls below what they
    carry when too many requests are late or one needs an instance besides them to meet its targets, and rises slowly;
    so it adapts to how tight the targets are.  Further ones are taken when requests were late, or a peak is far more
    than they are meant to carry, or the mean load is more.  An instance stays in use for ``HOLD_S`` after it was last
    needed.  One that was left costs more than another: the time since then is paid for as well, if it is used again.
    """

    def __init__(self) -> None:
        self._risked = MissBudget()  # requests that were sent, and how likely they miss their targets
        self._finished = MissBudget()  # requests that were sent, and those found to have finished late
        self._until: dict[str, float] = {}  # by instance id, seconds on the scheduler's clock
        self._used_at: dict[str, float] = {}  # by instance id: when it was in use last, seconds on the clock
        self._age_s = 0.0  # of the load, at the last review
        self._mask: Mask | None = None  # which of ``_mask_of`` are in use; None: to be worked out again
        self._mask_of: Sequence[Account] = ()
        self._needed: Collection[str] = ()  # ids of those that carry the load
        self._carried = CARRIED  # share of what they can do that they are meant to carry
        self._short = False  # whether too many missed their targets, or one needed another instance, since the review
        self._late: dict[str, int] = {}  # by instance id: requests that finished late there until the last review
        self._peak = PeakLoad()  # of the load, in its own unit of work
        self._steepness = LEAST_PEAK  # a peak of the load by its mean
        self._learned_at = float("-inf")  # when the share fell last, seconds on the clock
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

    def take(self, account: Account, able: Sequence[Account], now: float, *, risk: float) -> None:
        """Note that a request goes to an instance, which is in use from now on.

        ``able``: the instances that can serve it.  If none of those needed can, it needs another one whatever these
        carry.  ``risk``: how likely it misses its targets there, [0, 1].
        """
        self._risked.add(now, requests=1, missed=risk)
        self._finished.add(now, requests=1)
        if account.instance_id not in self._until:
            self._until[account.instance_id] = now + HOLD_S
            self._mask = None
            self._short = self._short or any(a.instance_id in self._needed for a in able)

    @property
    def excuses(self) -> bool:
        """Whether one more request may miss its targets, with no more than ``MISSED`` of them missing theirs."""
        return self._risked.left >= 1

    def price_factors(self, accounts: Sequence[Account], now: float) -> Column:
        """Return for each of the accounts by how much its price rises because of the time that it was not in use."""
        return np.array([self._price_factor(a.instance_id, now) for a in accounts])

    def soon_with_capacity(self, accounts: Sequence[Account], tokens: int, now: float) -> Accounts:
        """Return those of the instances that are in use and take another request once a prompt there is computed.

        Nobody knows when that is where prompts are long overdue.  ``tokens``: KV tokens that the request needs.  Those
        of an instance that lacks them may go to shorter requests again and again.
        """
        accounts, in_use = as_accounts(accounts), self._until
        soon = [(row, accounts[row]) for row in sorted(accounts.soon_rows)]
        return accounts.at(
            [row for row, a in soon if a.instance_id in in_use and a.free_tokens >= tokens and not is_overdue(a, now)]
        )

    def review(self, accounts: Sequence[Account], load: OfferedLoad, now: float) -> None:
        """Work out which instances are needed, at most once a second, and drop those no longer held.

        ``accounts``: those that can serve a request.  Needed are instances among all of the model, of which they may be
        a part.
        """
        accounts = as_accounts(accounts).whole
        if now < self._review_at and (
            accounts is self._reviewed or any(a.instance_id in self._until for a in accounts)
        ):
            return
        self._reviewed = accounts
        was_young, self._age_s = self._young, load.age_s(now)
        if was_young and not self._young:  # what finished late so far teaches nothing, nor does what is under way
            self._finished.forgive()
            self._learned_at = now
        self._review_at = now + (_REVIEW_S if self._age_s > _REVIEW_S else _FIRST_REVIEWS_S)
        self._until = {i: until for i, until in self._until.items() if until > now}
        self._mask = None
        self._note_use(accounts, now)
        prices = {a.instance_id: a.price_per_s * self._price_factor(a.instance_id, now) for a in accounts}
        carriers = Carriers(accounts, self._taken(accounts, load, now), prices)
        self._count_late(accounts, now)
        needed = self._choose(carriers, now)
        self._short = False
        self._needed = {a.instance_id for a in needed}
        for account in needed:
            self._until[account.instance_id] = now + HOLD_S

    def _count_late(self, accounts: Sequence[Account], now: float) -> None:
        """Count the requests that finished late since the last review; too many: the instances carry too much."""
        late = {a.instance_id: a.late for a in accounts}
        more = sum(max(0, n - self._late.get(i, n)) for i, n in late.items())
        self._finished.add(now, missed=more)
        self._late = {**self._late, **late} if len(self._late) < _MOST_COUNTED else late
        self._short = self._short or (more > 0 and self._finished.spent > SPENT)

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

    def _taken(self, accounts: Sequence[Account], load: OfferedLoad, now: float) -> Sequence[float]:
        """Return for each account how many such instances a peak of the load would take."""
        mean, brief = load.work(now)
        if self._age_s < BRIEF_S:  # what came first says little of peaks
            peak, usual = brief, mean
        else:
            peak, usual = self._peak.note(brief, now), self._peak.usual(mean, now)
        least = LEAST_PEAK * (mean if self._young else min(mean, usual))
        self._steepness = max(peak, least) / mean if mean else LEAST_PEAK
        return [self._steepness * each for each in _with_untried(accounts, load.of_instances(accounts, now))]

    def _choose(self, carriers: Carriers, now: float) -> Sequence[Account]:
        """Return those that carry the load from now on: with little reason to change, the ones that did so far."""
        needed: Sequence[Account] = carriers.among(self._needed)
        load = carriers.load_of(needed)
        share = self._carried = self._learn(load, now)
        if self._young and not carriers.are_known:
            return carriers.with_enough(needed, share if self._age_s > 0 else AT_ONCE)
        others = carriers.spared(carriers.with_enough((), share), share)
        if self._young:
            return needed if needed and load <= share <= load * WORTH_A_CHANGE else others
        # A peak may pass; a mean above the share does not.
        too_much = share * (1 if self._finished.spent > SPENT else min(PASSES, self._steepness))
        if self._short or load > too_much:
            grown = carriers.spared(carriers.with_enough(needed, share), share)
            return min(grown, others, key=carriers.price)
        if not needed:
            return others
        worth = WORTH_A_CHANGE if self._age_s > MEMORY_S else WORTH_AN_EARLY_CHANGE
        if carriers.price(others) * worth < carriers.price(needed):
            return others
        fewer = carriers.spared(needed, share)
        return fewer if carriers.price(fewer) * WORTH_A_CHANGE < carriers.price(needed) else needed

    @property
    def _young(self) -> bool:
        return self._age_s < YOUNG_S

    def _learn(self, load: float, now: float) -> float:
        """Return the share to carry.  ``load``: what the instances needed carry in a peak, of what they can do."""
        if self._short and not self._young and now - self._learned_at >= LESSON_S:
            self._learned_at = now
            return max(LEAST_CARRIED, min(load, self._carried) * LOWERED)
        return min(CARRIED, self._carried + RAISED_PER_S * _REVIEW_S)


def _with_untried(accounts: Sequence[Account], taken: Sequence[float]) -> Sequence[float]:
    """Return for each account how many such instances the load takes, as given for those that were tried.

    One that was not tried is taken to do as much for its price as those that were do together.
    """
    tried = [(1 / each, a.price_per_s) for a, each in zip(accounts, taken, strict=True) if a.is_tried and each > 0]
    done, paid = sum(each for each, _ in tried), sum(price for _, price in tried)
    if len(tried) == len(accounts) or not done or not paid:
        return taken
    return [
        each if a.is_tried or not a.price_per_s else paid / (done * a.price_per_s)
        for a, each in zip(accounts, taken, strict=True)
    ]
