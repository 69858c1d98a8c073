"""Tracks KV pulls: which are under way, which failed, and which peers can be reached."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from executor_svc.engine.vllm.kv_connectors.connector import Pull

log = logging.getLogger(__name__)

PEERS_REMEMBERED = 1024  # beyond that all are forgotten, and the next release to each takes a few seconds


@dataclass(slots=True)
class _Failures:
    """A report that some of the pulls under way failed."""

    count: int  # failures whose request is not known yet
    among: set[str]  # engine request ids


class Pulls:
    """Tracks the KV that one engine fetches from others.

    vLLM reports how many pulls failed, not which ones.  If all pulls under way failed, they are known.  Otherwise the
    count of cached tokens in a request's first output shows whether its pull failed, unless a part of the prompt was
    cached here.  A request whose pull failed first computes its prompt.  So of the requests that a report is about, the
    last ones to put out a token are those that failed, as many as are still missing.
    """

    def __init__(self) -> None:
        self._waiting: set[str] = set()  # engine request ids that wait for KV
        self._reports: list[_Failures] = []  # each with a failure that is not attributed yet
        self._failed: set[str] = set()  # engine request ids whose pull failed, and whose prompt is computed here
        self._releasing = 0  # releases under way, whose failures vLLM counts with those of pulls
        self._peers: dict[str, bool] = {}  # by peer: whether the latest pull from it, or notice to it, worked

    def begin(self, request_id: str) -> None:
        """Note that a request waits for KV."""
        self._waiting.add(request_id)

    def first_output(self, request_id: str, pull: Pull, cached_tokens: int) -> bool:
        """Note a request's first output.  Return whether its pull failed, so that its prompt was computed here.

        ``cached_tokens``: the prompt tokens that vLLM counts as cached.  It counts fetched tokens and, after a prefix
        that was cached here, also tokens whose fetch failed.
        """
        self._waiting.discard(request_id)
        failed = cached_tokens < pull.tokens or request_id in self._failed
        failed = self._attributed(request_id, failed)
        self.note_peer(pull.peer, not failed)
        return failed

    def _attributed(self, request_id: str, failed: bool) -> bool:
        """Take a request out of the reports that are about it.  Return whether its pull failed."""
        for report in [report for report in self._reports if request_id in report.among]:
            report.among.discard(request_id)
            failed = failed or report.count > len(report.among)
            report.count -= failed
        self._drop_attributed()
        return failed

    def _drop_attributed(self) -> None:
        self._reports = [report for report in self._reports if report.count > 0 and report.among]

    def end(self, request_id: str) -> None:
        """Forget a request.  Idempotent."""
        self._waiting.discard(request_id)
        self._failed.discard(request_id)
        for report in self._reports:
            report.among.discard(request_id)
        self._drop_attributed()

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """Count a release as under way while the block runs."""
        self._releasing += 1
        try:
            yield
        finally:
            self._releasing -= 1

    def note_failures(self, count: int) -> None:
        """Note that ``count`` pulls or releases failed."""
        if count >= len(self._waiting) + self._releasing:
            self._failed |= self._waiting
        else:
            log.warning("%d of %d KV pulls failed; their prompts are computed here", count, len(self._waiting))
            self._reports.append(_Failures(count, set(self._waiting)))

    def note_peer(self, peer: str, worked: bool) -> None:
        """Remember whether the latest pull from ``peer``, or notice to it, worked."""
        if len(self._peers) >= PEERS_REMEMBERED:
            self._peers.clear()
        self._peers[peer] = worked

    def has_met(self, peer: str) -> bool:
        """Whether a pull from ``peer`` or a notice to it was tried before."""
        return peer in self._peers

    def reaches(self, peer: str) -> bool:
        """Whether the latest pull from ``peer``, or notice to it, worked.  Raises KeyError for an unknown peer."""
        return self._peers[peer]
