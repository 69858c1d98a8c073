"""Has a request wait for a faster instance that is full of prompts for a moment."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts, as_accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.engine_capacity import ROUND_TRIP_S
from scheduler_svc.domain.capacity.figures import Figures, Rows
from scheduler_svc.domain.objectives import one_candidate, scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import RELATIVE_TOLERANCE, TIME_TOLERANCE_S

#: The rule by which a request waits for a faster instance.
RULE = "waits_for_faster"


def unless_faster_is_full(choice: Choice, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
    """Return the choice, or one that waits for an instance which has prompts for its next steps.

    A fast engine is through with those in a few hundredths of a second; a slow one may take a second for the prompt.  A
    request waits if its first token is predicted to come sooner at the full instance, and its finish too, with what its
    prefill delays those that run there.  Each request behind it counts as a delay, by the prompts that are ahead: so in
    a long queue nobody waits, and no instance stays idle.  ``accounts``: those that the choice is of.

    Nobody waits for longer than the first token is predicted to take at the instance chosen: requests of another class
    may fill the faster one again and again.

    It does not wait if it goes where it does for another reason: a cache, its session, its caller's wish, its class.
    """
    able, request = demand.able, demand.request
    if choice.waits:  # for others, wherever it goes
        return choice
    if len(able) <= len(accounts) or demand.overtakes or demand.cached_tokens:
        return choice
    if request.session or request.preferred_instance:
        return choice
    here = accounts[choice.index]
    prefill_s = one_candidate.prefill_s(here, demand)
    first_s = one_candidate.first_step_s(here, now) + prefill_s
    if demand.behind * ROUND_TRIP_S >= first_s:  # no instance is through with its prompts sooner
        return choice
    if demand.waits_since is not None and now - demand.waits_since >= first_s:
        return choice
    found = as_accounts(able)
    if not found.soon_rows:  # told sooner than which of them have room for the request
        return choice
    rows = _full_of_prompts(found, demand, now)
    if not len(rows):
        return choice
    first_tokens, finishes = _predicted(found.figures, demand, now)
    row = int(rows[first_tokens[rows].argmin()])
    delay_s = demand.behind * found[row].prefill_limit_s + TIME_TOLERANCE_S
    later_s = (demand.output_tokens - 1) * one_candidate.token_s(here, demand)
    finish_s = first_s + later_s + prefill_s * here.live
    least = 1 - RELATIVE_TOLERANCE
    if first_tokens.item(row) + delay_s > first_s * least or finishes.item(row) + delay_s > finish_s * least:
        return choice
    why = f"waits for {found[row].instance_id}, where its first token comes sooner behind the prompts that are there"
    return Choice(index=choice.index, why=why, rule=RULE, scores=choice.scores, waits=True)


def _full_of_prompts(accounts: Accounts, demand: Demand, now: float) -> Rows:
    """Return the rows of instances that have room for the request, and too many prompts ahead that are not overdue.

    An instance where they are overdue may have stopped.  A quiet one takes prompts of CRITICAL requests only, even when
    those ahead are done.
    """
    each = accounts.figures
    limit = each.slot_limit_leaving_reserve if demand.must_leave_reserve else each.slot_limit
    room = (limit >= demand.prompt_tokens) & (each.free_tokens >= demand.tokens)
    rows: Rows = (room & (each.full_prefill_s > 0) & (each.ready_at > now) & each.with_free_slot).nonzero()[0]
    if demand.must_leave_reserve and len(rows):
        return rows[[not accounts[row].quiet for row in rows.tolist()]]
    return rows


def _predicted(each: Figures, demand: Demand, now: float) -> tuple[scorers.Scores, scorers.Scores]:
    """Predict seconds until the first token; and until the finish, with those by which the prefill delays others."""
    prefills = scorers.prefill_beside_s(each, demand, None)
    first_tokens = scorers.first_step_s(each, now) + prefills
    finishes = scorers.finish_s(demand, first_tokens, scorers.token_s(each, demand))
    return first_tokens, finishes + prefills * each.live
