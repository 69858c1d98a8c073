"""Plans the load of the policy demonstration: which requests are sent, in which class, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from sage_client import GenerateOptions, Priority
from sage_local.demo.calibration import Calibration

SEED = 20_261
BURST_GAP_S = 0.02
TRICKLE_REQUESTS = 8
SHORTEST, LONGEST = 16, 512  # output tokens

# A class meets its target if its requests go first, and misses it if they wait until the end of the burst.
TTFT_SHARE = {
    Priority.CRITICAL: 0.5,
    Priority.HIGH: 0.5,
    Priority.NORMAL: 0.8,
    Priority.LOW: 1.5,
    Priority.BACKGROUND: 2.0,
}
"""Target for the first token, as a share of the expected time of the whole burst."""

KINDS = {
    Priority.CRITICAL: "interactive",
    Priority.HIGH: "interactive",
    Priority.NORMAL: "chat",
    Priority.LOW: "batch",
    Priority.BACKGROUND: "batch",
}
LENGTHS = {"interactive": 0.6, "chat": 1.0, "batch": 1.3}
"""Output tokens, as a share of the average."""

PROMPTS = {
    "interactive": "Complete the name of this function: def read_",
    "chat": "What is the difference between a list and a tuple?",
    "batch": "Summarise the following report in plain words. "
    + "The meeting began with the numbers of the quarter. " * 12,
}

_B, _L, _N, _H, _C = Priority.BACKGROUND, Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL
FIRST_WAVE = (_B, _B, _L, _B, _B, _L, _B, _B)
"""Requests that are not urgent and fill all slots, so that later requests wait or go first."""

LATER = (_L, _B, _L, _N, _N, _L, _B, _N, _L, _N, _N, _N, _N, _N, _H, _C, _H, _C, _H, _C, _H, _C, _C, _C)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One request to send."""

    name: str  # short, for people; part of the request id
    priority: Priority
    kind: str  # "interactive", "chat", "batch"
    after_s: float  # seconds after the start of the burst or trickle
    output_tokens: int  # exact number; the end of the sequence is ignored
    prompt: str
    as_chat: bool
    ttft_target_s: float
    deadline_s: float
    session: str  # requests of one session stay together where that costs little; empty: of none

    def options(self) -> GenerateOptions:
        """Return keyword arguments of ``generate``."""
        options: GenerateOptions = {
            "priority": self.priority,
            "ttft_target": self.ttft_target_s,
            "deadline": self.deadline_s,
            "max_tokens": self.output_tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "session": self.session,
            "tags": {"kind": self.kind},
        }
        if self.as_chat:
            system = {"role": "system", "content": "Answer in one sentence."}
            options["messages"] = [system, {"role": "user", "content": self.prompt}]
        return options


def burst(calibration: Calibration) -> list[Planned]:
    """Plan more requests than the engines can run at once, the most urgent last."""
    dice = random.Random(SEED)
    classes = (*FIRST_WAVE, *LATER)
    average = burst_tokens(calibration)
    return [
        _planned(f"b{number:02}", priority, BURST_GAP_S * number, average, dice, calibration)
        for number, priority in enumerate(classes, 1)
    ]


def trickle(calibration: Calibration) -> list[Planned]:
    """Plan requests far enough apart that any one instance could serve them all, so that the placement is free.

    They belong to no session, which would keep them where it ran last.
    """
    dice = random.Random(SEED + 1)
    classes = [_N, _H, _L, _N, _C, _B, _N, _H]
    average = max(SHORTEST, burst_tokens(calibration) // 2)
    gap_s = average / calibration.stream_tokens_per_s
    return [
        replace(_planned(f"t{number:02}", priority, gap_s * number, average, dice, calibration), session="")
        for number, priority in enumerate(classes[:TRICKLE_REQUESTS], 1)
    ]


def burst_tokens(calibration: Calibration) -> int:
    """Return the average output tokens with which the burst takes about its intended time."""
    wanted = calibration.burst_s * calibration.tokens_per_s / (len(FIRST_WAVE) + len(LATER))
    return round(min(max(wanted, SHORTEST), LONGEST))


def expected_burst_s(calibration: Calibration) -> float:
    """Return the expected seconds of the burst, by the measured rate."""
    average = burst_tokens(calibration)
    total = sum(LENGTHS[KINDS[priority]] * average for priority in (*FIRST_WAVE, *LATER))
    return total / calibration.tokens_per_s


def _planned(
    name: str,
    priority: Priority,
    after_s: float,
    average: int,
    dice: random.Random,
    calibration: Calibration,
) -> Planned:
    kind = KINDS[priority]
    whole_s = expected_burst_s(calibration)
    tokens = round(average * LENGTHS[kind] * dice.uniform(0.8, 1.2))
    return Planned(
        name=name,
        priority=priority,
        kind=kind,
        after_s=after_s,
        output_tokens=max(tokens, SHORTEST // 2),
        prompt=f"{PROMPTS[kind]} ({name})",
        as_chat=kind == "chat" and calibration.has_chat_template,
        ttft_target_s=TTFT_SHARE[priority] * whole_s,
        deadline_s=max(120.0, 20 * whole_s),
        session=kind,
    )
