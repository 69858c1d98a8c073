"""``python -m fleet up|down|status``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fleet.down import down
from fleet.show import show
from fleet.spec import DEFAULT_ADDRESS, ROLES, FleetSpec
from fleet.state_dir import AlreadyRunning, StateDir
from fleet.supervise import supervise
from fleet.up import up


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done; 1 failed; 2 wrong usage; 3 (``status``) no fleet is running; 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    state = StateDir.default()
    if options.command == "up":
        if options.executors is not None and options.executors < len(options.roles):
            parser.error(f"{len(options.roles)} roles for {options.executors} executors")
        return up(_spec(options), state, foreground=options.foreground)
    if options.command == "down":
        return down(state)
    if options.command == "status":
        return show(state, as_json=options.json)
    try:
        return supervise(state.read_spec(), state)
    except AlreadyRunning as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fleet", description="A scheduler and executors on this machine.  Files: SAGE_HOME, or ./.sage"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down|status")
    _add_up(commands.add_parser("up", help="start a fleet and wait until all its instances are READY"))
    commands.add_parser("down", help="stop it and wait until nothing of it is left")
    status = commands.add_parser("status", help="what runs, and how it is")
    status.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser("supervise")  # what `up` runs in the background
    return parser


def _add_up(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    defaults = FleetSpec()
    add("--executors", type=_count, metavar="N", help=f"default: as many as roles, else {defaults.executors}")
    add("--roles", type=_roles, default=(), metavar="R,R,...", help=f"of executor 1, 2, ...: {', '.join(ROLES)}")
    add("--engine", choices=["vllm", "simulated"], default=defaults.engine, help="default: %(default)s")
    add("--model", default="", help="hub id or path; default: a tiny model made here")
    add("--served-name", default="", help="that clients ask for; default: a path's last part, or the hub id")
    add("--address", default=DEFAULT_ADDRESS, metavar="HOST:PORT", help="of the scheduler; default: %(default)s")
    add("--policy", default=defaults.policy, help="default: %(default)s")
    add("--max-running", type=_count, metavar="N", help="sequences at once per executor; default: the engine's own")
    add("--price-per-hour", type=_prices, default=(), metavar="P,P,...", help="of executor 1, 2, ...; default: 0")
    add("--start-timeout", type=float, default=defaults.start_timeout_s, metavar="SECONDS", help="default: %(default)s")
    add("--drain-timeout", type=float, default=defaults.drain_timeout_s, metavar="SECONDS", help="default: %(default)s")
    add("--scheduler-arg", action="append", default=[], metavar="FLAG=VALUE", help="a further flag of scheduler_svc")
    add("--executor-arg", action="append", default=[], metavar="FLAG=VALUE", help="a further flag of executor_svc")
    add("--foreground", action="store_true", help="stay, and stop the fleet at Ctrl-C")


def _spec(options: argparse.Namespace) -> FleetSpec:
    return FleetSpec(
        executors=options.executors or len(options.roles) or FleetSpec().executors,
        roles=options.roles,
        engine=options.engine,
        model=options.model,
        served_name=options.served_name,
        address=options.address,
        policy=options.policy,
        max_running=options.max_running,
        prices=options.price_per_hour,
        start_timeout_s=options.start_timeout,
        drain_timeout_s=options.drain_timeout,
        scheduler_arguments=tuple(options.scheduler_arg),
        executor_arguments=tuple(options.executor_arg),
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _roles(text: str) -> tuple[str, ...]:
    roles = tuple(part.strip().lower() for part in text.split(","))
    for role in roles:
        if role not in ROLES:
            raise argparse.ArgumentTypeError(f"{role!r} is not a role; there are: {', '.join(ROLES)}")
    return roles


def _prices(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None


if __name__ == "__main__":
    sys.exit(main())
