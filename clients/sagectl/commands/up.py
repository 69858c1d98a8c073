"""``sagectl up``: starts a scheduler and executors on this machine."""

from __future__ import annotations

import math

import click

from sage_common.addresses import split_host_port
from sage_local.fleet.spec import DEFAULT_ADDRESS, DEFAULT_HTTP, PREFILL_DECODE_ROLES, ROLES, Engine, FleetSpec
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.up import up as start_fleet
from sagectl.options.command import command
from sagectl.options.local_fleet import ENGINE, MODEL

_DEFAULTS = FleetSpec()


def _roles(text: str) -> tuple[str, ...]:
    roles = tuple(part.strip().lower() for part in text.split(",")) if text else ()
    for role in roles:
        if role not in ROLES:
            raise click.BadParameter(f"{role!r} is not a role; the roles are: {', '.join(ROLES)}")
    return roles


def _address(text: str) -> str:
    try:
        split_host_port(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}, such as 127.0.0.1:50061") from None
    return text


def _http_address(text: str) -> str:
    return _address(text) if text else ""


def _prices(text: str) -> tuple[float, ...]:
    try:
        prices = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers") from None
    for price in prices:
        if not 0 <= price < math.inf:
            raise click.BadParameter(f"{price:g} is not a price: it must be 0 or more")
    return prices


@command(
    examples=[
        ("up --engine simulated", "a scheduler and two executors, without vLLM"),
        ("up --model Qwen/Qwen3-0.6B --executors 1", "a real engine with a model of the hub"),
        ("up --engine simulated --pd", "one executor for prefill, one for decode"),
    ]
)
@ENGINE
@MODEL
@click.option(
    "--executors",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Number of executors.  [default: as many as roles, else {_DEFAULTS.executors}]",
)
@click.option(
    "--roles", type=_roles, default="", metavar="R,R,...", help=f"Roles of executor 1, 2, ...: {', '.join(ROLES)}."
)
@click.option(
    "--pd", is_flag=True, help=f"Prefill/decode separation: short for --roles {','.join(PREFILL_DECODE_ROLES)}."
)
@click.option(
    "--embedding-model",
    default="",
    help="Hub id or path of the model of executors with the role embedding.  [default: the model, as NAME-embedding]",
)
@click.option(
    "--served-name", default="", help="Model name that requests ask for.  [default: hub id, or last part of the path]"
)
@click.option(
    "--address",
    type=_address,
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT",
    help="Address the scheduler listens on.",
)
@click.option(
    "--standby",
    is_flag=True,
    help="A second scheduler on the next port, which leads when the first one dies.  Needs PostgreSQL.",
)
@click.option(
    "--http",
    type=_http_address,
    default=DEFAULT_HTTP,
    show_default=True,
    metavar="HOST:PORT",
    help="Address of the OpenAI-compatible HTTP gateway, which needs vLLM; empty: none.",
)
@click.option(
    "--policy",
    default=_DEFAULTS.policy,
    show_default=True,
    help="Scheduling policy; what `sagectl policy set` chose before counts until this is another one.",
)
@click.option(
    "--max-running",
    type=click.IntRange(min=1),
    metavar="N",
    help="Sequences that an executor runs at the same time.  [default: the engine's own]",
)
@click.option(
    "--price-per-hour",
    type=_prices,
    default="",
    metavar="P[,P,...]",
    help="Price of every executor, or the prices of executor 1, 2, ...  [default: 0]",
)
@click.option(
    "--start-timeout",
    type=float,
    default=_DEFAULTS.start_timeout_s,
    show_default=True,
    metavar="SECONDS",
    help="Time until every instance must be READY.",
)
@click.option(
    "--drain-timeout",
    type=float,
    default=_DEFAULTS.drain_timeout_s,
    show_default=True,
    metavar="SECONDS",
    help="Time that running requests get to finish when the fleet stops.",
)
@click.option(
    "--scheduler-arg", multiple=True, metavar="FLAG=VALUE", help="Further flag of scheduler_svc; may be repeated."
)
@click.option(
    "--executor-arg", multiple=True, metavar="FLAG=VALUE", help="Further flag of executor_svc; may be repeated."
)
@click.option("--foreground", is_flag=True, help="Keep running in this terminal; Ctrl-C stops the fleet.")
@click.pass_context
def up(
    ctx: click.Context,
    engine: Engine,
    model: str,
    executors: int | None,
    roles: tuple[str, ...],
    pd: bool,
    embedding_model: str,
    served_name: str,
    address: str,
    standby: bool,
    http: str,
    policy: str,
    max_running: int | None,
    price_per_hour: tuple[float, ...],
    start_timeout: float,
    drain_timeout: float,
    scheduler_arg: tuple[str, ...],
    executor_arg: tuple[str, ...],
    foreground: bool,
) -> None:
    """Start a scheduler and executors on this machine.

    Returns when every instance is READY; with roles that form a pair it also waits up to 10 s until one can hand over.
    The processes keep running in the background and are restarted when they die.  Logs and state are in SAGE_HOME, or
    in ./.sage.
    """
    roles = roles or (PREFILL_DECODE_ROLES if pd else ())
    if executors is not None and executors < len(roles):
        raise click.UsageError(f"{len(roles)} roles for {executors} executors")
    count = executors or len(roles) or _DEFAULTS.executors
    if len(price_per_hour) not in (0, 1, count):
        raise click.UsageError(
            f"{len(price_per_hour)} prices for {count} executors: give one for all, or one for each executor"
        )
    spec = FleetSpec(
        executors=count,
        roles=roles,
        engine=engine,
        model=model,
        embedding_model=embedding_model,
        served_name=served_name,
        address=address,
        standby=standby,
        http=http,
        policy=policy,
        max_running=max_running,
        prices=price_per_hour * count if len(price_per_hour) == 1 else price_per_hour,
        start_timeout_s=start_timeout,
        drain_timeout_s=drain_timeout,
        scheduler_arguments=scheduler_arg,
        executor_arguments=executor_arg,
    )
    ctx.exit(start_fleet(spec, StateDir.default(), foreground=foreground))
