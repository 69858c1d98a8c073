"""Which prefill instance can hand KV over to which decode instance: proved by a warm-up handoff, not assumed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum


class PairState(Enum):
    """Whether a pair can hand KV over, as far as is known."""

    UNTRIED = "untried"
    WARMING = "warming"
    USABLE = "usable"
    FAILED = "failed"  # tried again at retry_at; never if the ends are not compatible


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """One engine as one end of a pair."""

    instance_id: str
    engine_start_id: str  # a new engine has to prove again that it can hand over
    compatibility_key: str  # engines with equal keys can hand over; with an empty key none can
    model: str

    @property
    def identity(self) -> tuple[str, str]:
        """Instance id and engine start id, which together identify the end."""
        return self.instance_id, self.engine_start_id


@dataclass(slots=True, kw_only=True, eq=False)
class Pair:
    """A prefill and a decode instance, and what their handoffs proved."""

    prefill: End
    decode: End
    state: PairState = PairState.UNTRIED
    reason: str = ""  # why it failed
    failures: int = 0  # in a row
    retry_at: float = 0.0  # seconds on the scheduler's clock; inf: never
    handoff_s: float | None = None  # seconds of recent handoffs, exponentially weighted; None before the first


RETRY_S = 2.0
RETRY_MAX_S = 60.0
MAX_DOUBLINGS = 10  # more would only overflow: the wait is capped long before
HANDOFF_WEIGHT = 0.2  # weight of a new measurement in ``Pair.handoff_s``


class PairBook:
    """Keeps all pairs of the engines that run now: at most prefill ends times decode ends."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[tuple[str, str], tuple[str, str]], Pair] = {}
        self._by_decode: dict[str, list[Pair]] = {}  # by decode instance
        self._handoff_s: dict[str, float] | None = None  # mean by model; None: to be computed again
        self._away: frozenset[str] = frozenset()  # instances whose engine runs and that take nothing now

    def __iter__(self) -> Iterator[Pair]:
        """Iterate over all pairs."""
        return iter(self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def renew(self, prefills: Iterable[End], decodes: Iterable[End], *, away: Collection[str] = ()) -> None:
        """Form the pairs of these ends; pairs that stay keep what they proved, the others are forgotten.

        ``away``: instances that take nothing now.  Their pairs are not due for a warm-up, and the result of a warm-up
        that was under way when its instance went away is ignored.  ``Pool`` keeps such pairs from being used.

        Two ends of one model with different compatibility keys form a pair that failed for good, so that operators
        see the reason.
        """
        self._away = frozenset(away)
        decodes = list(decodes)
        wanted = {
            (p.identity, d.identity): (p, d)
            for p in prefills
            for d in decodes
            if p.instance_id != d.instance_id and p.model == d.model and p.compatibility_key and d.compatibility_key
        }
        self._pairs = {k: self._kept(k) or _pair(p, d) for k, (p, d) in wanted.items()}
        self._handoff_s = None
        self._by_decode = {}
        for pair in self._pairs.values():
            self._by_decode.setdefault(pair.decode.instance_id, []).append(pair)

    def due(self, now: float) -> list[Pair]:
        """Return the pairs to warm up now."""
        return [
            pair
            for pair in self._pairs.values()
            if (pair.state is PairState.UNTRIED or (pair.state is PairState.FAILED and now >= pair.retry_at))
            and not self._is_away(pair)
        ]

    def usable_for(self, decode_instance: str) -> dict[str, Pair]:
        """Return the usable pairs of a decode instance, by prefill instance."""
        return {
            pair.prefill.instance_id: pair
            for pair in self._by_decode.get(decode_instance, ())
            if pair.state is PairState.USABLE
        }

    def find(self, prefill_instance: str, decode_instance: str) -> Pair | None:
        """Return the pair of these two instances; None if they form none."""
        pairs = self._by_decode.get(decode_instance, ())
        return next((pair for pair in pairs if pair.prefill.instance_id == prefill_instance), None)

    def typical_handoff_s(self, model: str) -> float | None:
        """Return the mean handoff time over a model's pairs, in seconds; None where none was measured.

        Cheap: called for every plan.
        """
        if self._handoff_s is None:
            measured: dict[str, list[float]] = {}
            for pair in self:
                if pair.handoff_s is not None:
                    measured.setdefault(pair.decode.model, []).append(pair.handoff_s)
            self._handoff_s = {name: math.fsum(times) / len(times) for name, times in measured.items()}
        return self._handoff_s.get(model)

    def warming(self, pair: Pair) -> None:
        """Note that a warm-up of the pair is under way: it is not due again meanwhile."""
        pair.state = PairState.WARMING

    def worked(self, pair: Pair, handoff_s: float) -> None:
        """Note a handoff of ``handoff_s`` seconds, prefill's end to decode's first token: the pair is usable."""
        pair.state = PairState.USABLE
        pair.reason = ""
        pair.failures = 0
        self._handoff_s = None
        known = pair.handoff_s
        pair.handoff_s = handoff_s if known is None else known + HANDOFF_WEIGHT * (handoff_s - known)

    def failed(self, pair: Pair, reason: str, now: float) -> None:
        """Leave a pair unused until a warm-up works again; each failure in a row makes it wait longer, up to a minute.

        All handoffs that were under way when it failed count as one failure.
        """
        if pair.state is PairState.FAILED:
            return
        pair.state = PairState.FAILED
        pair.reason = reason
        pair.retry_at = now + min(RETRY_S * 2 ** min(pair.failures, MAX_DOUBLINGS), RETRY_MAX_S)
        pair.failures += 1

    def _kept(self, key: tuple[tuple[str, str], tuple[str, str]]) -> Pair | None:
        pair = self._pairs.get(key)
        if pair is not None and pair.state is PairState.WARMING and self._is_away(pair):
            return replace(pair, state=PairState.UNTRIED)  # a new object, which the end of that warm-up does not change
        return pair

    def _is_away(self, pair: Pair) -> bool:
        return pair.prefill.instance_id in self._away or pair.decode.instance_id in self._away


def _pair(prefill: End, decode: End) -> Pair:
    if prefill.compatibility_key == decode.compatibility_key:
        return Pair(prefill=prefill, decode=decode)
    reason = f"not compatible: {prefill.compatibility_key} and {decode.compatibility_key}"
    return Pair(prefill=prefill, decode=decode, state=PairState.FAILED, reason=reason, retry_at=math.inf)
