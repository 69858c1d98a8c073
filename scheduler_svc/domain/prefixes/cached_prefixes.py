"""What the instances' prefix caches hold of a request's prompt, kept up with what is placed and reported."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import fsum

import numpy as np

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.cached_tokens import NOTHING_CACHED
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.prefixes.prefix_index import PrefixIndex
from scheduler_svc.domain.prefixes.recent_load import RecentLoad
from scheduler_svc.domain.prefixes.settings import PrefixSettings
from scheduler_svc.domain.prefixes.too_loaded import TooLoaded
from scheduler_svc.domain.request import Request

#: An instance that was given less than this share of its time lately is not too loaded, whatever the others have.
_IDLE_SHARE = 0.1

#: Which instances are too loaded is looked at again after placements of an eighth of the pool's instances.
_LOOKS = 8
_KEPT_POOLS = 64


class CachedPrefixes:
    """Answers how many prompt tokens each instance holds, and which instances are too loaded for that to count.

    A prompt that is placed counts as held from then on: its blocks are there once it is prefilled, and whatever is sent
    after it waits for that prefill anyway.  If its attempt ends before its first token, it no longer counts.
    """

    def __init__(self, settings: PrefixSettings) -> None:
        self.settings = settings
        self._index = PrefixIndex(max_bytes=settings.max_index_bytes)
        self._load = RecentLoad()
        self._reporting: set[str] = set()  # instances whose engines report their blocks
        self._engines: dict[str, int] = {}  # number of the engine, by instance id
        self._engines_seen = 0
        self._placements = 0
        self._over: dict[int, TooLoaded] = {}  # by the identity of a pool's accounts
        self._arriving: dict[int, _Arriving] = {}  # by attempt number
        self._sessions: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()  # last instance and engine

    # ------------------------------------------------------------------ instances

    def engine_ready(self, instance_id: str, facts: EngineFacts, *, new_engine: bool) -> None:
        """Start over with an instance whose engine is new; nothing happens for one that is known."""
        if not self.settings.aware or not facts.prefix_caching:
            self.forget(instance_id)  # its role or settings changed: nothing is credited
        elif new_engine or instance_id not in self._engines:
            self.forget(instance_id)
            self._index.open(instance_id, capacity_tokens=facts.kv_capacity_tokens)
            self._engines_seen += 1
            self._engines[instance_id] = self._engines_seen

    def emptied(self, instance_id: str) -> None:
        """Drop what an instance holds, because its engine was put to sleep; sessions are sent there for it no more."""
        if instance_id in self._engines:
            self._index.clear(instance_id)
            self._engines_seen += 1
            self._engines[instance_id] = self._engines_seen

    def forget(self, instance_id: str) -> None:
        """Drop an instance that is gone, or whose engine is."""
        self._index.forget(instance_id)
        self._load.forget(instance_id)
        self._reporting.discard(instance_id)
        self._engines.pop(instance_id, None)

    def report(self, instance_id: str, report: CacheReport) -> None:
        """Take what an engine says of its prefix cache."""
        if not self.settings.aware:
            return
        self._reporting.add(instance_id)
        if report.cleared:
            self._index.clear(instance_id)
            for arriving in self._arriving.values():
                if arriving.held and arriving.instance_id == instance_id:
                    self._hold(arriving)
        self._index.drop(instance_id, report.removed)
        self._index.hold(instance_id, report.stored, report.block_tokens)

    # ------------------------------------------------------------------ placement

    def knows(self, request: Request) -> bool:
        """Whether the hashes of a request's prompt are known, so that ``cached_tokens`` says all that caches hold."""
        return self.settings.aware and request.prefix_block_tokens > 0

    def cached_tokens(self, request: Request, prompt_tokens: int) -> Mapping[str, int]:
        """Return by instance how many tokens of a prompt its cache is believed to hold, at most all but one.

        ``prompt_tokens``: with what earlier attempts emitted.  Instances without any are left out.
        """
        if not self.settings.aware or not request.prefix_hashes:
            return NOTHING_CACHED
        found = self._index.cached_tokens(request.prefix_hashes, request.prefix_block_tokens)
        most = prompt_tokens - 1  # an engine computes at least one token
        if len(request.prefix_hashes) * request.prefix_block_tokens > most:
            return found.at_most(most)
        return found

    def too_loaded(self, accounts: Accounts) -> TooLoaded:
        """Return the instances that were given too much more than the mean of ``accounts``, which are not empty.

        It is looked at again once placements may have changed it.
        """
        known = self._over.get(id(accounts))
        if known is not None and known.accounts is accounts and self._placements < known.until:
            return known
        if len(self._over) >= _KEPT_POOLS:
            self._over.clear()
        ids = accounts.ids
        loads = self._load.of_all(ids)
        most = max(fsum(loads) / len(loads) * self.settings.max_load_ratio, self._load.of_share(_IDLE_SHARE))
        mask = np.array(loads) > most
        bits = self._index.bits_of(ids[row] for row in mask.nonzero()[0].tolist())
        until = self._placements + len(ids) // _LOOKS
        found = self._over[id(accounts)] = TooLoaded(accounts, mask, bits=bits, until=until)
        return found

    def last_of_session(self, request: Request) -> str:
        """Return the instance that ran a request's session last; empty if there is none."""
        key = request.key.tenant, request.session
        instance_id, engine = self._sessions.get(key, ("", 0))
        return instance_id if engine == self._engines.get(instance_id) else ""

    def placed(self, request: Request, reservation: Reservation, *, busy_s: float, now: float) -> None:
        """Note that an attempt was placed.  ``busy_s``: seconds of engine time that it is predicted to take."""
        instance_id = reservation.instance_id
        if instance_id not in self._engines:
            return
        self._load.add(instance_id, busy_s, now)
        self._placements += 1
        hashed = len(request.prefix_hashes) * request.prefix_block_tokens
        reservation.unhashed_tokens = reservation.prompt_tokens - hashed
        if request.prefix_hashes:
            number = reservation.attempt_number
            arriving = self._arriving[number] = _Arriving(
                instance_id, request.prefix_hashes, request.prefix_block_tokens
            )
            if reservation.prefills:
                self._hold(arriving)
        if request.session and reservation.prefills:
            self._remember_session(request, instance_id)

    def prefilled(self, attempt_number: int) -> None:
        """Note an attempt's first token: its prompt is in the cache."""
        arriving = self._arriving.pop(attempt_number, None)
        if arriving is not None and not arriving.held:
            self._hold(arriving)

    def released(self, reservation: Reservation, own_tokens: int) -> None:
        """Note the end of an attempt that emitted ``own_tokens``."""
        number, instance_id = reservation.attempt_number, reservation.instance_id
        arriving = self._arriving.pop(number, None)
        if arriving is not None and not own_tokens:
            self._index.drop(instance_id, arriving.added)
        elif instance_id not in self._reporting:
            self._index.fill(instance_id, number, reservation.unhashed_tokens + own_tokens)

    def _hold(self, arriving: _Arriving) -> None:
        before = self._index.hold(arriving.instance_id, arriving.hashes, arriving.block_tokens)
        arriving.added = arriving.hashes[before:]
        arriving.held = True

    def _remember_session(self, request: Request, instance_id: str) -> None:
        key = request.key.tenant, request.session
        self._sessions[key] = instance_id, self._engines[instance_id]
        self._sessions.move_to_end(key)
        if len(self._sessions) > self.settings.max_sessions:
            self._sessions.popitem(last=False)


class _Arriving:
    """A prompt whose attempt has no first token yet."""

    __slots__ = ("added", "block_tokens", "hashes", "held", "instance_id")

    def __init__(self, instance_id: str, hashes: Sequence[int], block_tokens: int) -> None:
        self.instance_id = instance_id
        self.hashes = hashes
        self.block_tokens = block_tokens
        self.held = False  # it counts as held already
        self.added: Sequence[int] = ()  # those of ``hashes`` that the instance did not hold before
