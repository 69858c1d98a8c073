"""The audit log: a line for every action of an operator and every refusal, never with a prompt or a token."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

LOGGER = "sage.audit"
"""Name of the logger; its lines are written whatever the configured level is."""

REFUSALS_PER_S = 10.0
REFUSALS_AT_ONCE = 50
"""Bounds of the lines about refusals: what is above them is counted, and the next line says how many."""

DETAIL_LIMIT = 512  # characters of an action's detail, and of a refusal's reason

log = logging.getLogger(LOGGER)


class Audit:
    """Writes the audit log.  ``clock``: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._left = float(REFUSALS_AT_ONCE)
        self._counted_at = clock()
        self._left_out = 0

    def action(self, who: str, peer: str, method: str, detail: str, outcome: str) -> None:
        """Note what an operator did, or tried to do.  ``outcome``: OK, or the gRPC status."""
        log.info("action: %s by %r from %s: %s: %s", _name(method), who, peer, outcome, _clipped(detail))

    def refused(self, who: str, peer: str, method: str, reason: str) -> None:
        """Note a call that was refused for who its caller is."""
        if not self._may_write():
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        more = f" ({left_out} more refusals before this one had no line)" if left_out else ""
        log.warning("refused: %s by %r from %s: %s%s", _name(method), who, peer, _clipped(reason), more)

    def _may_write(self) -> bool:
        now = self._clock()
        self._left = min(float(REFUSALS_AT_ONCE), self._left + (now - self._counted_at) * REFUSALS_PER_S)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _name(method: str) -> str:
    return method.rpartition("/")[2]


def _clipped(text: str) -> str:
    """Return ``text`` as one line of printable characters, shortened to DETAIL_LIMIT."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= DETAIL_LIMIT else line[: DETAIL_LIMIT - 3] + "..."
