"""Lets what was learned of an idle engine fade, so that it is tried again.

An engine that looked slow while it warmed up gets no requests where others are free, reports no iterations, and would
look slow for ever.
"""

from __future__ import annotations

from scheduler_svc.domain.prediction.pace import Pace

FADES_AFTER_S = 30.0  # without an iteration
HALF_LIFE_S = 30.0  # of the difference to the fastest engine of the model, from then on
#: The same where the pace tells how much load an engine carries: to take one into use costs more than one request.
LOAD_HALF_LIFE_S = 600.0


def faded(own: Pace, fastest: Pace, idle_s: float, half_life_s: float = HALF_LIFE_S) -> Pace:
    """Return the pace to score an engine by that has been idle for ``idle_s`` seconds.

    It nears the fastest engine's with time and never passes it.  The slower the engine was, the longer it takes until
    it is worth a try: one request, which tells what is true.  ``half_life_s``: of the difference.
    """
    if idle_s <= FADES_AFTER_S:
        return own
    left = 0.5 ** ((idle_s - FADES_AFTER_S) / half_life_s)

    def nearer(mine: float, other: float) -> float:
        return mine if mine <= other else other + (mine - other) * left

    return Pace(
        base_s=nearer(own.base_s, fastest.base_s),
        prefill_token_s=nearer(own.prefill_token_s, fastest.prefill_token_s),
        running_s=nearer(own.running_s, fastest.running_s),
        kv_token_s=nearer(own.kv_token_s, fastest.kv_token_s),
    )


def slowness(pace: Pace) -> float:
    """Return the seconds that a request of ordinary lengths takes an engine that runs nothing else."""
    return pace.service_s(512, 128)
