"""Options of the commands that run engines on this machine."""

from __future__ import annotations

import click

from sage_local.fleet.spec import FleetSpec

ENGINE = click.option(
    "--engine",
    type=click.Choice(["vllm", "simulated"]),
    default=FleetSpec().engine,
    show_default=True,
    help="Inference engine of the executors; the simulated one needs neither vLLM nor a model.",
)
MODEL = click.option("--model", default="", help="Hub id or path of the model.  [default: a tiny model made here]")
