"""The requests that others would hide which are held back before them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from scheduler_svc.domain.objectives.held_back import is_patient
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets
from scheduler_svc.domain.waiting_request import WaitingRequest


def hidden(
    behind: Iterable[WaitingRequest],
    seen: Collection[WaitingRequest],
    defaults: Mapping[Priority, Targets],
    now: float,
    *,
    most: int,
) -> list[WaitingRequest]:
    """Return the ``most`` of those ``behind`` that are to be looked at, though others were ``seen`` before them.

    They take turns from pass to pass, so that each is looked at after a few passes, however many are held back.  Of
    those whose turn it is, those go first that have waited as long as one may, or began elsewhere.  Notes the turn of
    each that it returns.
    """
    found = [w for w in behind if w not in seen]
    found.sort(key=lambda w: (w.looked_at, _may_be_held_back(w, defaults, now)))
    del found[most:]
    for waiting in found:
        waiting.looked_at = now
    return found


def _may_be_held_back(waiting: WaitingRequest, defaults: Mapping[Priority, Targets], now: float) -> bool:
    """Whether some policy may hold a request back, by what it has waited."""
    return not waiting.emitted_tokens and is_patient(waiting.request, defaults, now)
