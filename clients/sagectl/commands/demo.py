"""``sagectl demo``: compares policies on two engines of this machine."""

from __future__ import annotations

import click

from sage_local.fleet.spec import Engine
from sagectl.options.command import command
from sagectl.options.local_fleet import ENGINE, MODEL


@command(
    examples=[
        ("demo --engine simulated", "five policies, without vLLM"),
        ("demo --pd", "split requests against whole ones"),
    ]
)
@ENGINE
@MODEL
@click.option("--pd", is_flag=True, help="Prefill/decode separation: one prefill and one decode executor.")
@click.option(
    "--burst-seconds",
    type=click.FloatRange(0, 600, min_open=True),
    metavar="SECONDS",
    help="Intended length of the burst under each policy.  [default: 5]",
)
@click.option(
    "--turn-seconds",
    type=click.FloatRange(0, 600, min_open=True),
    metavar="SECONDS",
    help="With --pd: intended length of each of the four turns of the comparison.  [default: 12]",
)
@click.pass_context
def demo(
    ctx: click.Context,
    engine: Engine,
    model: str,
    pd: bool,
    burst_seconds: float | None,
    turn_seconds: float | None,
) -> None:
    """Run two engines under five policies and compare the results.

    Starts a scheduler and two executors on a free port, sends the same mixed load under each policy, prints what the
    numbers show and stops everything.
    """
    from sage_local.demo.run import run_demo  # draws with rich, which the other commands do without

    ctx.exit(run_demo(engine, model, pd=pd, burst_s=burst_seconds, turn_s=turn_seconds))
