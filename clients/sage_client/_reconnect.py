"""How often and how fast requests are taken up again whose connection broke.

``_dispatcher`` takes up those of a session, ``_generate_transport`` those of ``Generate`` calls.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

DOUBLINGS_LIMIT = 64
"""Doublings of the first delay: more than any delay allows, and few enough for a float."""

LEADER_PAUSE_LIMIT_S = 2.0
"""Longest time between two questions who leads."""


def leader_pause_s(retry_s: float, leaderless_s: float) -> float:
    """Return after how many seconds a scheduler is asked again that does not lead and asks for ``retry_s``.

    The next leader is found in about an eighth of the time that there was none for, ``leaderless_s``, or ``retry_s``:
    with none for long, all that wait for one ask less often.  Randomised to spread clients out.
    """
    return max(retry_s, min(leaderless_s / 8, LEADER_PAUSE_LIMIT_S)) * random.uniform(1.0, 1.25)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnect:
    """Limits of reattaching to a request whose stream broke, and of sending one that was not accepted yet."""

    #: Consecutive attempts without a new token; 0 disables reattaching.  By default about half a minute, in which a
    #: scheduler is started again.
    attempts: int = 20
    first_delay_s: float = 0.1  # seconds before the first attempt
    max_delay_s: float = 2.0  # seconds; delays double up to this
    #: Seconds for which a request that no scheduler has accepted is sent again, by its id, where there is no connection
    #: or it breaks; 0: not at all.  A scheduler that is started again takes a few.
    submit_s: float = 15.0

    def delay_s(self, attempt: int) -> float:
        """Return seconds to wait before attempt number ``attempt`` (from 1), randomised to spread clients out."""
        doublings = min(attempt - 1, DOUBLINGS_LIMIT)
        ceiling = min(self.first_delay_s * 2.0**doublings, self.max_delay_s)
        return ceiling * random.uniform(0.5, 1.0)
