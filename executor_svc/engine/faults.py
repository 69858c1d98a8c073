"""Faults a simulated engine can be told to have, from its settings or while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum


class FaultKind(Enum):
    NONE = "none"
    DIE = "die"  # EngineDeadError everywhere, for good
    HANG = "hang"  # no steps, no outputs; load() still answers: the lying heartbeat
    SLOW = "slow"  # every step takes `factor` times as long
    ERROR = "error"  # the next `times` requests fail with EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault.  Starts once the engine has generated ``after_tokens`` tokens counted from the injection;
    ERROR counts the tokens of the failing request instead, so that it can fail in the middle of its stream.
    """

    kind: FaultKind
    after_tokens: int = 0
    factor: float = 10.0  # SLOW only
    times: int = 1  # ERROR only; requests


class FaultState:
    """The faults of one engine: those that wait for their moment, and what those that struck have changed."""

    def __init__(self) -> None:
        self.slow_factor = 1.0
        self.dead = False
        self.running = asyncio.Event()  # cleared while the engine hangs
        self.running.set()
        self._waiting: list[tuple[int, Fault]] = []  # generated-token count at which each strikes
        self._errors: deque[int] = deque()  # for each of the next requests to fail: tokens it still gives

    @property
    def hung(self) -> bool:
        return not self.running.is_set()

    def inject(self, fault: Fault, generated_tokens: int) -> None:
        if fault.kind is FaultKind.ERROR:
            self._errors.extend([fault.after_tokens] * fault.times)
        elif fault.kind is not FaultKind.NONE:
            self._waiting.append((generated_tokens + fault.after_tokens, fault))
            self.strike(generated_tokens)

    def strike(self, generated_tokens: int) -> None:
        """Let the faults whose moment has come take effect."""
        for at, fault in [entry for entry in self._waiting if generated_tokens >= entry[0]]:
            self._waiting.remove((at, fault))
            if fault.kind is FaultKind.SLOW:
                self.slow_factor = fault.factor
            elif fault.kind is FaultKind.HANG:
                self.running.clear()
            elif fault.kind is FaultKind.DIE:
                self.dead = True

    def next_request_fails_after(self) -> int | None:
        """Tokens after which the request that arrives now fails; None: it does not."""
        return self._errors.popleft() if self._errors else None

    def clear(self) -> None:
        """Undo everything but death."""
        self._waiting.clear()
        self._errors.clear()
        self.slow_factor = 1.0
        self.running.set()
