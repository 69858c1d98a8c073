"""Faults of a simulated engine, from its settings or injected while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum


class FaultKind(Enum):
    """What can go wrong."""

    NONE = "none"
    DIE = "die"  # EngineDeadError everywhere, for good
    HANG = "hang"  # no steps, no outputs; load() still answers: the lying heartbeat
    SLOW = "slow"  # every step takes `factor` times as long
    ERROR = "error"  # the next `times` requests fail with EngineError
    KV_CONNECT = "kv_connect"  # the next `times` KV pulls of this engine reach nobody
    KV_SLOW = "kv_slow"  # every KV pull of this engine takes `factor` times as long
    KV_CORRUPT = "kv_corrupt"  # the next `times` KV pulls of this engine bring the wrong KV: wrong tokens follow


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault.

    It starts once the engine has generated ``after_tokens`` tokens counted from the injection.  ERROR counts the tokens
    of the failing request instead, so that it can fail in the middle of its stream.
    """

    kind: FaultKind
    after_tokens: int = 0
    factor: float = 10.0  # SLOW and KV_SLOW only
    times: int = 1  # ERROR, KV_CONNECT and KV_CORRUPT only; requests


class FaultState:
    """The faults of one engine: those that wait for their moment, and the effects of those that struck."""

    def __init__(self) -> None:
        self.slow_factor = 1.0
        self.kv_slow_factor = 1.0
        self.kv_pulls_cut = 0  # how many of the next KV pulls reach nobody
        self.kv_pulls_corrupt = 0  # how many of the next KV pulls bring the wrong KV
        self.dead = False
        self.running = asyncio.Event()  # cleared while the engine hangs
        self.running.set()
        self._waiting: list[tuple[int, Fault]] = []  # generated-token count at which each strikes
        self._errors: deque[int] = deque()  # one entry per request to fail: the tokens it still gives

    @property
    def hung(self) -> bool:
        """Whether the engine hangs."""
        return not self.running.is_set()

    def inject(self, fault: Fault, generated_tokens: int) -> None:
        """Add a fault to an engine that has generated ``generated_tokens`` tokens so far."""
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
            elif fault.kind is FaultKind.KV_SLOW:
                self.kv_slow_factor = fault.factor
            elif fault.kind is FaultKind.KV_CONNECT:
                self.kv_pulls_cut += fault.times
            elif fault.kind is FaultKind.KV_CORRUPT:
                self.kv_pulls_corrupt += fault.times

    def next_request_fails_after(self) -> int | None:
        """Return the tokens after which the request that arrives now fails; None if it does not."""
        return self._errors.popleft() if self._errors else None

    def next_pull_is_cut(self) -> bool:
        """Whether the KV pull that starts now reaches nobody.  Uses the fault up."""
        struck = self.kv_pulls_cut > 0
        self.kv_pulls_cut -= struck
        return struck

    def next_pull_is_corrupt(self) -> bool:
        """Whether the KV pull that ends now brings the wrong KV.  Uses the fault up."""
        struck = self.kv_pulls_corrupt > 0
        self.kv_pulls_corrupt -= struck
        return struck

    def clear(self) -> None:
        """Undo everything but death."""
        self._waiting.clear()
        self._errors.clear()
        self.slow_factor = self.kv_slow_factor = 1.0
        self.kv_pulls_cut = self.kv_pulls_corrupt = 0
        self.running.set()
