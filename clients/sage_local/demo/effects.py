"""Writes one sentence per policy about the effect that the results show, or that they show none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sage_client import Priority
from sage_local.demo.round import Round, cost_per_1000_tokens, per_instance

IN_ORDER = 0.97  # share of pairs; the events of two consecutive requests may arrive in reverse order

SHORT_WAIT_S = 0.05  # a shorter wait does not count as waiting


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """Whether a policy's effect shows in the results, and the numbers."""

    policy: str
    shown: bool
    sentence: str

    def __str__(self) -> str:
        return f"{self.policy}: {self.sentence}" if self.shown else f"{self.policy}: NO EFFECT SHOWN: {self.sentence}"


def effects(rounds: Mapping[str, Round], prices: Mapping[str, float]) -> list[Effect]:
    """Return the effect of each round, in order.  ``prices`` are per hour, by instance id."""
    fifo = rounds.get("fifo")
    return [_effect(each, fifo, prices) for each in rounds.values()]


def _effect(this: Round, fifo: Round | None, prices: Mapping[str, float]) -> Effect:
    if this.policy == "fifo":
        return _fifo(this)
    if this.policy == "priority":
        return _priority(this, fifo)
    if this.policy == "slo_aware":
        return _slo_aware(this, fifo)
    if this.policy == "cost_optimized":
        return _cost_optimized(this, fifo, prices)
    return _adaptive(this)


def _fifo(this: Round) -> Effect:
    share = this.in_order_share()
    if share is None:
        return _no_effect(this, "nothing was placed")
    counts = " and ".join(f"{count} on {name}" for name, count in per_instance(this.burst).items())
    waits = f"CRITICAL waited {_s(this, Priority.CRITICAL)}, BACKGROUND {_s(this, Priority.BACKGROUND)} (median)"
    sentence = f"{share:.1%} of pairs started in order of arrival; {waits}; {counts}"
    return Effect(policy=this.policy, shown=share >= IN_ORDER, sentence=sentence)


def _priority(this: Round, fifo: Round | None) -> Effect:
    first, last = this.wait_median_s(Priority.CRITICAL), this.wait_median_s(Priority.BACKGROUND)
    if first is None or last is None:
        return _no_effect(this, "not every class was served")
    sentence = f"CRITICAL waited {first:.2f} s, BACKGROUND {last:.2f} s (median)"
    if fifo is not None:
        sentence += f"; under fifo {_s(fifo, Priority.CRITICAL)} and {_s(fifo, Priority.BACKGROUND)}"
    return Effect(policy=this.policy, shown=first < last and last > SHORT_WAIT_S, sentence=sentence)


def _slo_aware(this: Round, fifo: Round | None) -> Effect:
    met, asked = this.slo_met()
    if fifo is None:
        return _no_effect(this, f"{met} of {asked} met their targets, and there is no fifo round to compare with")
    before, asked_before = fifo.slo_met()
    sentence = f"{met} of {asked} met their targets, {before} of {asked_before} under fifo"
    return Effect(policy=this.policy, shown=met * asked_before > before * asked, sentence=sentence)


def _cost_optimized(this: Round, fifo: Round | None, prices: Mapping[str, float]) -> Effect:
    cost = cost_per_1000_tokens(this.trickle)
    before = cost_per_1000_tokens(fifo.trickle) if fifo is not None else None
    if cost is None or before is None or not prices:
        return _no_effect(this, "there is nothing to compare with")
    cheapest = min(prices, key=lambda name: prices[name])
    here = per_instance(this.trickle).get(cheapest, 0)
    there = per_instance(fifo.trickle).get(cheapest, 0) if fifo is not None else 0
    sentence = (
        f"with free slots on every instance {here} of {len(this.trickle)} ran on {cheapest}, the cheapest "
        f"({there} under fifo), and 1,000 tokens cost {cost:.6f} ({before:.6f} under fifo, {cost / before - 1:+.0%})"
        if before
        else f"nothing has a price: {here} of {len(this.trickle)} ran on {cheapest}"
    )
    return Effect(policy=this.policy, shown=cost < before, sentence=sentence)


def _adaptive(this: Round) -> Effect:
    met, asked = this.slo_met()
    if not this.switches:
        return _no_effect(this, f"it followed one policy throughout; {met} of {asked} met their targets")
    switches = "; ".join(f"{each.from_policy} -> {each.to_policy} because {each.reason}" for each in this.switches)
    return Effect(policy=this.policy, shown=True, sentence=f"{switches}; {met} of {asked} met their targets")


def _no_effect(this: Round, why: str) -> Effect:
    return Effect(policy=this.policy, shown=False, sentence=why)


def _s(this: Round, priority: Priority) -> str:
    wait_s = this.wait_median_s(priority)
    return "nothing" if wait_s is None else f"{wait_s:.2f} s"
