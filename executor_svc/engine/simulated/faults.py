"""Faults of a simulated engine, from its settings or injected while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum


class FaultKind(Enum):
    """The kinds of fault."""

    NONE = "none"
    DIE = "die"  # EngineDeadError everywhere, for good
    HANG = "hang"  # no steps and no outputs, but load() still answers, so that heartbeats go on
    SLOW = "slow"  # every step takes `factor` times as long
    ERROR = "error"  # the next `times` requests fail with EngineError
    KV_CONNECT = "kv_connect"  # the next `times` KV pulls of this engine cannot reach the other engine
    KV_SLOW = "kv_slow"  # every KV pull of this engine takes `factor` times as long
    KV_CORRUPT = "kv_corrupt"  # the next `times` KV pulls of this engine bring wrong KV, and so wrong tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault.

    The fault takes effect once the engine has generated ``after_tokens`` tokens counted from the injection.  For ERROR
    ``after_tokens`` counts the tokens of the failing request, so that it can fail in the middle of its stream.
    """

    kind: FaultKind
    after_tokens: int = 0
    factor: float = 10.0  # SLOW and KV_SLOW only
    times: int = 1  # ERROR, KV_CONNECT and KV_CORRUPT only; requests

    @property
    def from_the_start(self) -> bool:
        """Whether it makes the engine slow from its first iteration on."""
        return self.kind is FaultKind.SLOW and not self.after_tokens


class FaultState:
    """The faults of one engine: those that wait to take effect, and the effects of the others."""

    def __init__(self) -> None:
        self.slow_factor = 1.0
        self.kv_slow_factor = 1.0
        self.kv_pulls_cut = 0  # how many of the next KV pulls cannot reach the other engine
        self.kv_pulls_corrupt = 0  # how many of the next KV pulls bring wrong KV
        self.dead = False
        self.running = asyncio.Event()  # cleared while the engine hangs
        self.running.set()
        self._waiting: list[tuple[int, Fault]] = []  # each with the number of generated tokens at which it takes effect
        self._errors: deque[int] = deque()  # one entry per request to fail: the tokens that it generates before

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
        """Apply the faults that are due at ``generated_tokens`` tokens."""
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
        """Return after how many tokens the request that arrives now fails; None if it does not fail."""
        return self._errors.popleft() if self._errors else None

    def next_pull_is_cut(self) -> bool:
        """Return whether the KV pull that starts now cannot reach the other engine.  Counts the fault down."""
        struck = self.kv_pulls_cut > 0
        self.kv_pulls_cut -= struck
        return struck

    def next_pull_is_corrupt(self) -> bool:
        """Return whether the KV pull that ends now brings wrong KV.  Counts the fault down."""
        struck = self.kv_pulls_corrupt > 0
        self.kv_pulls_corrupt -= struck
        return struck

    def clear(self) -> None:
        """Undo every fault except death."""
        self._waiting.clear()
        self._errors.clear()
        self.slow_factor = self.kv_slow_factor = 1.0
        self.kv_pulls_cut = self.kv_pulls_corrupt = 0
        self.running.set()
