"""Works out from a request's history where its time went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from scheduler_svc.control.requests.live_request import HistoryEntry, LiveRequest
from scheduler_svc.domain.decision import Decision


class TimeUse(Enum):
    """What a request spends time on."""

    QUEUE = "queue"  # waiting in the queue
    PREFILL = "prefill"  # from being sent to an instance until the next output token
    TRANSFER = "transfer"  # split requests: from prefill's end until the decode instance's first token
    DECODE = "decode"  # output tokens arrived
    LOST = "lost"  # time of a failed attempt that delivered no token


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSlice:
    """A stretch of a request's time that was spent on one thing."""

    use: TimeUse
    start_s: float  # since acceptance
    length_s: float
    instance_id: str = ""  # empty in the queue


def timeline(live: LiveRequest, now: float) -> list[TimeSlice]:
    """Divide the time from acceptance to the request's end, or to ``now``: in order, without gap or overlap."""
    return _Timeline(live).slices(now)


def in_order(history: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    """Sort a history by time: LAST_TOKEN is added later than it happened, once its attempt has failed."""
    return sorted(history, key=lambda entry: entry.at)


class _Timeline:
    def __init__(self, live: LiveRequest) -> None:
        self._live = live
        self._arrived_at = live.request.arrived_at
        self._slices: list[TimeSlice] = []
        self._decisions: Iterator[Decision] = (placement.decision for placement in live.placements)
        self._decision: Decision | None = None
        self._use, self._where, self._since = TimeUse.QUEUE, "", self._arrived_at
        self._attempt_from = 0  # index of the attempt's first slice

    def slices(self, now: float) -> list[TimeSlice]:
        end = now
        for entry in in_order(self._live.history):
            self._take(entry)
            end = entry.at if self._live.state.ended else now
        self._turn(end, self._use, self._where)
        return self._slices

    def _take(self, entry: HistoryEntry) -> None:
        match entry.event:
            case "placed":
                self._placed(entry.at)
            case "prefilled" if self._decision is not None:
                self._turn(entry.at, TimeUse.TRANSFER, self._decision.instance_id)
            case "fallback" if self._use is TimeUse.PREFILL and self._decision is not None:
                # The prefill leg failed: what it did is lost, and the decode instance begins with the prompt.
                self._turn(entry.at, TimeUse.PREFILL, self._decision.instance_id)
                self._lose()
            case "adopted":
                self._adopted(entry.at)
            case "first_token" | "resumed" if self._decision is not None and self._use is not TimeUse.DECODE:
                self._turn(entry.at, TimeUse.DECODE, self._decision.instance_id)
            case "last_token":
                self._turn(entry.at, TimeUse.LOST, self._where)
            case "requeued":
                self._turn(entry.at, TimeUse.QUEUE, "")
                self._lose()

    def _placed(self, at: float) -> None:
        self._decision = decision = next(self._decisions, None)
        if decision is not None:
            leg = decision.prefill if decision.prefill is not None else decision
            self._turn(at, TimeUse.PREFILL, leg.instance_id)
            self._attempt_from = len(self._slices)

    def _adopted(self, at: float) -> None:
        """Divide the time under an earlier scheduler by what is known of it: its first Assign and the first token."""
        live, decision = self._live, self._decision
        if decision is None or live.first_assigned_at is None:
            return
        self._slices.clear()
        self._attempt_from = 0
        self._use, self._where, self._since = TimeUse.QUEUE, "", self._arrived_at
        self._turn(live.first_assigned_at, TimeUse.PREFILL, decision.instance_id)
        if live.first_token_at is not None and live.first_token_at <= at:
            self._turn(live.first_token_at, TimeUse.DECODE, decision.instance_id)

    def _lose(self) -> None:
        """Count the attempt's time before its first token as LOST; what it decoded was delivered, so is not lost."""
        for index in range(self._attempt_from, len(self._slices)):
            if self._slices[index].use in (TimeUse.PREFILL, TimeUse.TRANSFER) and not self._delivered(index):
                self._slices[index] = replace(self._slices[index], use=TimeUse.LOST)
        self._attempt_from = len(self._slices)

    def _delivered(self, index: int) -> bool:
        return any(later.use is TimeUse.DECODE for later in self._slices[index:])

    def _turn(self, at: float, use: TimeUse, where: str) -> None:
        """End the current slice at ``at`` and begin one of ``use``."""
        if at > self._since:
            start_s = self._since - self._arrived_at
            self._slices.append(
                TimeSlice(use=self._use, start_s=start_s, length_s=at - self._since, instance_id=self._where)
            )
        self._use, self._where, self._since = use, where, max(at, self._since)
