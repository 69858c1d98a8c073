"""Which KV pulls are under way, which failed, and which peers can be reached."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from executor_svc.engine.vllm.kv_connectors.connector import Pull

log = logging.getLogger(__name__)

PEERS_REMEMBERED = 1024  # beyond that all are forgotten: the next release to each takes a few seconds


class Pulls:
    """Bookkeeping of the KV that one engine fetches from others.

    vLLM says how many pulls failed, not which ones.  They are known when all that were under way failed; otherwise the
    first output of each request tells, by its count of cached tokens.
    """

    def __init__(self) -> None:
        self._waiting: set[str] = set()  # engine request ids that wait for KV
        self._failed: set[str] = set()  # ids of those that compute their prompt now
        self._releasing = 0  # releases under way, which may fail like pulls
        self._peers: dict[str, bool] = {}  # engines that KV was to be fetched from: whether the last pull worked

    def begin(self, request_id: str) -> None:
        """Note that a request waits for KV."""
        self._waiting.add(request_id)

    def first_output(self, request_id: str, pull: Pull, cached_tokens: int) -> bool:
        """Note a request's first output.  Return whether its pull failed, so that its prompt was computed here.

        ``cached_tokens``: what vLLM counts as cached.  Fetched tokens count, and so do tokens that were to be fetched
        after a beginning that was cached here.
        """
        self._waiting.discard(request_id)
        failed = cached_tokens < pull.tokens or request_id in self._failed
        self.note_peer(pull.peer, not failed)
        return failed

    def end(self, request_id: str) -> None:
        """Forget a request.  Idempotent."""
        self._waiting.discard(request_id)
        self._failed.discard(request_id)

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """Count a release as under way while the block runs."""
        self._releasing += 1
        try:
            yield
        finally:
            self._releasing -= 1

    def note_failures(self, count: int) -> None:
        """Take in that ``count`` pulls or releases failed."""
        if count >= len(self._waiting) + self._releasing:
            self._failed |= self._waiting
        else:
            log.warning("%d of %d KV pulls failed; their prompts are computed here", count, len(self._waiting))

    def note_peer(self, peer: str, worked: bool) -> None:
        """Remember whether the latest pull from ``peer``, or notice to it, worked."""
        if len(self._peers) >= PEERS_REMEMBERED:
            self._peers.clear()
        self._peers[peer] = worked

    def has_met(self, peer: str) -> bool:
        """Whether anything was fetched from ``peer``, or tried to be."""
        return peer in self._peers

    def reaches(self, peer: str) -> bool:
        """Whether the latest pull from ``peer`` worked.  Raises KeyError for a peer that was never met."""
        return self._peers[peer]
