"""Least slack first."""

from __future__ import annotations

from collections.abc import Mapping

from mypy_extensions import mypyc_attr

from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, effective_targets
from scheduler_svc.domain.waiting_request import WaitingRequest


@mypyc_attr(allow_interpreted_subclasses=True)  # policies of others may extend it
class LeastSlack:
    """Orders by the latest moment at which a request can be sent to an engine and still meet its targets.

    Slack is target - now - predicted service; ``now`` is the same for all, so the order is that of the latest starts,
    which do not change.  A request that comes to the head after its latest start will miss its target.  The latest
    start then counts what is predicted for it at that time: what waits in the engine before it, and a margin.  If its
    first token is too late and its deadline can still be met, only the deadline counts.  If nothing can be met any
    more, the request steps back by ``late_delay_s`` from now: requests that are due before then, and may still meet
    their targets, go first.  If it comes to the head because that time is over, it steps back twice as far.
    """

    def __init__(self, defaults: Mapping[Priority, Targets], *, late_delay_s: float, max_slack_s: float) -> None:
        self._defaults = defaults
        self._late_delay_s = late_delay_s
        self._max_slack_s = max_slack_s

    @property
    def max_delay_s(self) -> float:
        """Seconds by which a key may be later than arrival."""
        return self._max_slack_s

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return the latest start that meets the request's targets, between arrival and ``max_slack_s`` later."""
        first_token, end = self._latest_starts(waiting)
        since = _since(waiting)
        latest = most = since + self._max_slack_s
        for start in (first_token, end):
            if start is not None and start < latest:
                latest = start
        return min(max(latest, since), most)

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return a later key for a request that can no longer meet its target, else None."""
        if waiting.key > now and waiting.first_token_s is None:
            return None  # as long as nothing else was predicted, the key is no later than the latest start
        if waiting.late:
            return self._stepped_back(waiting, now) if waiting.key <= now else None
        first_token, end = self._latest_starts(waiting)
        given_up = waiting.revisions > 0  # the first token's target no longer counts
        starts = [s for s in (None if given_up else first_token, end) if s is not None]
        if not starts or min(starts) >= now:
            return None
        if end is not None and end >= now:
            return min(end, _since(waiting) + self._max_slack_s)
        waiting.late = True
        return self._stepped_back(waiting, now)

    def _stepped_back(self, waiting: WaitingRequest, now: float) -> float | None:
        revised = min(now + self._late_delay_s * 2**waiting.revisions, _since(waiting) + self._max_slack_s)
        return revised if revised > waiting.key else None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        due = f"{waiting.key - now:.2f} s"
        if waiting.late:
            return f"too late for its target: behind those that are not, due in {due}"
        return f"slack {due} to the latest start that meets its target"

    def _latest_starts(self, waiting: WaitingRequest) -> tuple[float | None, float | None]:
        """Return the latest starts for the first token and for the deadline; None without that target."""
        request = waiting.request
        ttft = effective_targets(request, self._defaults).ttft_s
        # A resumed request has its first token: the same target counts for its next token, from when it was requeued.
        first_token = _since(waiting) + ttft - _first_token_s(waiting) if ttft is not None else None
        if request.target_at is None:
            return first_token, None
        return first_token, request.target_at - _finish_s(waiting)


def _first_token_s(waiting: WaitingRequest) -> float:
    """Return seconds until the first token: predicted when a placement was tried, else those of its prefill alone."""
    if waiting.first_token_s is not None:
        return waiting.first_token_s
    return waiting.pace.iteration_s(waiting.prompt_tokens, 1, waiting.prompt_tokens)


def _finish_s(waiting: WaitingRequest) -> float:
    """Return seconds until the end, likewise."""
    if waiting.finish_s is not None:
        return waiting.finish_s
    return waiting.pace.service_s(waiting.prompt_tokens, waiting.output_tokens)


def _since(waiting: WaitingRequest) -> float:
    return waiting.enqueued_at if waiting.resumed else waiting.request.arrived_at
