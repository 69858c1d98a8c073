"""Which policy each model followed in a simulation, from when to when, and why it changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from scheduler_svc.domain.policies.policy import PolicySwitch
from scheduler_svc.domain.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class FollowedPolicy:
    """A time in which a model's requests were ordered and placed by one policy."""

    model: str  # empty in a trace that names none
    policy: str  # the policy in force itself, unless that one follows others, as ``adaptive`` does
    from_s: float  # since the trace began; the first one from the model's first request
    until_s: float  # when another one followed; the last one: when the simulation ended
    reason: str  # why it came after the one before, in words; empty: it is the model's first, and nothing was weighed


class FollowedPolicies:
    """Notes which policy each model follows.  Asked often: a look costs one comparison for each model."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._ended: list[FollowedPolicy] = []
        self._now: dict[str, FollowedPolicy] = {}  # by model; ``until_s`` is not known yet

    def arrived(self, model: str, now: float) -> None:
        """Note what a model follows whose request arrived; the later ones of a model change nothing."""
        if model not in self._now:
            self._note(model, now)

    def look(self, now: float) -> None:
        """Note the models that follow another policy than at the last look."""
        for model in list(self._now):
            self._note(model, now)

    def until(self, ended_at: float) -> tuple[FollowedPolicy, ...]:
        """Return all times, by model and in order; the last of each model ends at ``ended_at``."""
        last = (replace(each, until_s=ended_at) for each in self._now.values())
        return tuple(sorted((*self._ended, *last), key=lambda each: (each.model, each.from_s)))

    def _note(self, model: str, now: float) -> None:
        policy, before = self._scheduler.followed(model), self._now.get(model)
        if before is not None and before.policy == policy:
            return
        switch = self._latest_to(policy, model)
        at_s = switch.at if switch is not None and before is not None and switch.at > before.from_s else now
        if before is not None:
            self._ended.append(replace(before, until_s=at_s))
        reason = switch.reason.removeprefix(_about(model)) if switch is not None else ""
        self._now[model] = FollowedPolicy(model=model, policy=policy, from_s=at_s, until_s=at_s, reason=reason)

    def _latest_to(self, policy: str, model: str) -> PolicySwitch | None:
        """Return the latest switch of a model, or of all models, to a policy."""
        switches = [each for each in reversed(self._scheduler.switches) if each.to_policy == policy]
        own = (each for each in switches if each.reason.startswith(_about(model)))
        return next(own, None) or next((each for each in switches if not each.reason.startswith("model ")), None)


def shares(followed: Iterable[FollowedPolicy]) -> dict[str, float]:
    """Return the share of the time that each policy was followed, the largest first; models count equally."""
    times: dict[str, float] = {}
    for each in followed:
        times[each.policy] = times.get(each.policy, 0.0) + each.until_s - each.from_s
    total = sum(times.values()) or 1.0
    return {policy: times[policy] / total for policy in sorted(times, key=lambda policy: -times[policy])}


def _about(model: str) -> str:
    """Return what the reason of a switch begins with that one model made."""
    return f"model {model!r}: "
