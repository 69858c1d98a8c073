"""The choices of a request that has several: live requests of one prompt, under one id and with one end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from scheduler_svc.control.requests.outcome import Finished, Outcome, SloOutcome
from scheduler_svc.domain.request import Request, RequestState


class Choice(Protocol):
    """What one of several choices says of itself."""

    @property
    def state(self) -> RequestState:
        """Its own state."""
        ...

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None before."""
        ...

    @property
    def published_outcome(self) -> Outcome | None:
        """The same, once readers may have it."""
        ...


ChoiceT = TypeVar("ChoiceT", bound=Choice)


class Choices(Generic[ChoiceT]):
    """Joins the live requests of several choices (``live_request.join_choices``).

    Each is queued, placed, generated and continued by itself.  Together they have one end: that of the last one, if all
    finish; else that of the first one that does not, which ends the others (``RequestTable.end``).
    """

    __slots__ = ("members", "missing")

    def __init__(self, members: Sequence[ChoiceT]) -> None:
        """``members``: by index of the choice."""
        self.members = tuple(members)
        self.missing = 0  # those of an earlier scheduler's request that may still come back with their executor

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return all(each.outcome is not None for each in self.members)

    @property
    def outcome(self) -> Outcome | None:
        """How the request ended; None while a choice goes on."""
        return _joined([each.outcome for each in self.members])

    @property
    def published_outcome(self) -> Outcome | None:
        """The same, once readers may have it."""
        return _joined([each.published_outcome for each in self.members])

    @property
    def state(self) -> RequestState:
        """The state of the whole: RUNNING while any runs, else QUEUED while any waits, else that of its end."""
        states = {each.state for each in self.members}
        for state in (RequestState.RUNNING, RequestState.QUEUED):
            if state in states:
                return state
        return next((each.state for each in self.members if each.state is not RequestState.FINISHED), states.pop())


def split(request: Request) -> tuple[Request, ...]:
    """Return a request for each choice, made from that of any: the same but for the index in its key, and its seed."""
    if request.choices == 1:
        return (request,)
    return tuple(_choice(request, index) for index in range(request.choices))


def _choice(request: Request, index: int) -> Request:
    seed, sampling = request.sampling.seed, request.sampling
    if seed is not None:
        sampling = replace(sampling, seed=seed - request.key.choice + index)
    wanted = request.first_choice_prompt_logprobs if request.key.choice else sampling.prompt_logprobs
    given, kept = (None, wanted) if index else (wanted, None)  # choice 0 gives them
    return replace(
        request,
        key=request.key._replace(choice=index),
        sampling=sampling if sampling.prompt_logprobs == given else replace(sampling, prompt_logprobs=given),
        first_choice_prompt_logprobs=kept,
    )


def _joined(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    """Return the outcome of all together; None while there is one without."""
    finished: list[Finished] = []
    for each in outcomes:
        if each is None:
            return None
        if isinstance(each, Finished):
            finished.append(each)
    if len(finished) < len(outcomes):
        return next(each for each in outcomes if not isinstance(each, Finished))
    return sum_of(finished)


def sum_of(each: Sequence[Finished]) -> Finished:
    """Return the end of a request of which all choices finished.

    Reason and stop are those of choice 0; times run from the first token of any to the end of the last.
    """
    first = each[0]
    ttft_s = min((one.ttft_s for one in each if one.ttft_s is not None), default=None)
    total_s = max(one.total_s for one in each)
    last_token_s = max((_last_token_s(one) for one in each), default=0.0)
    return replace(
        first,
        completion_tokens=sum(one.completion_tokens for one in each),
        attempts=sum(one.attempts for one in each),
        queue_s=min(one.queue_s for one in each),
        ttft_s=ttft_s,
        decode_s=None if ttft_s is None else last_token_s - ttft_s,
        total_s=total_s,
        cost=sum(one.cost for one in each),
        slo=_worst(each),
    )


def _last_token_s(finished: Finished) -> float:
    """Return the seconds from acceptance to the last token; 0 without one."""
    return (finished.ttft_s or 0.0) + (finished.decode_s or 0.0)


def _worst(each: Sequence[Finished]) -> tuple[SloOutcome, ...]:
    """Return of each target the choice that took the longest."""
    worst: dict[str, SloOutcome] = {}
    for slo in (slo for one in each for slo in one.slo):
        if slo.target not in worst or slo.measured_s > worst[slo.target].measured_s:
            worst[slo.target] = slo
    return tuple(worst.values())
