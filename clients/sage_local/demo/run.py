"""Runs one of the two demonstrations; ``sagectl demo`` and ``make demo`` call it."""

from __future__ import annotations

import asyncio
import sys

from sage_local.demo.display import Display
from sage_local.demo.policy_demo import BURST_S, policy_demo_spec, run_policy_demo
from sage_local.demo.prefill_decode_demo import TURN_S, prefill_decode_demo_spec, run_prefill_decode_demo
from sage_local.fleet.requirements import NotInstalled, require_installed
from sage_local.fleet.spec import Engine

NOT_INSTALLED = 2


def run_demo(
    engine: Engine, model: str = "", *, pd: bool = False, burst_s: float | None = None, turn_s: float | None = None
) -> int:
    """Run a demonstration on two executors of this machine and print it.

    Args:
        engine: of both executors.
        model: hub id or path; empty: the tiny model made here for vllm.
        pd: show prefill/decode separation instead of the policies.
        burst_s: intended seconds of the burst under each policy; None: 5.
        turn_s: with ``pd``, intended seconds of each turn of its comparison; None: 12.

    Returns:
        0 if everything went well, 1 if something did not, 2 if a package is not installed, 130 if interrupted.
    """
    try:
        require_installed(engine)
    except NotInstalled as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_INSTALLED
    if pd:
        pd_spec = prefill_decode_demo_spec(engine, model)
        return asyncio.run(run_prefill_decode_demo(pd_spec, Display(), turn_s=turn_s or TURN_S))
    spec = policy_demo_spec(engine, model)
    return asyncio.run(run_policy_demo(spec, Display(), burst_s=burst_s or BURST_S))
