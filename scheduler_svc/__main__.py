"""Start here: ``python -m scheduler_svc``."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys

try:
    from sage_telemetry.prometheus import CannotServe
    from scheduler_svc.config import SchedulerConfig, load_or_exit
    from scheduler_svc.control.supervisor import TaskDied
    from scheduler_svc.domain.errors import UnknownPolicy
    from scheduler_svc.domain.policies.catalogue import PolicyLoadError
    from scheduler_svc.telemetry.logs import configure_logging
    from scheduler_svc.transport.server import ListenError
    from scheduler_svc.wiring import SchedulerService
except ModuleNotFoundError as absent:
    sys.exit(f"sage-scheduler: {absent.name} is not installed: pip install 'sage-control-plane[scheduler]'")

log = logging.getLogger("scheduler_svc")

GARBAGE_THRESHOLD = 20_000  # objects made and not freed, after which young ones are looked through


def main() -> None:
    """Exit status: 0 after SIGTERM or SIGINT, 1 when the service failed, 2 for a bad configuration."""
    config = load_or_exit(sys.argv[1:])
    configure_logging(config.log_level, json_lines=config.log_format == "json")
    try:
        raise SystemExit(asyncio.run(_serve(config)))
    except (UnknownPolicy, PolicyLoadError, ListenError, CannotServe) as error:
        print(f"sage-scheduler: configuration: {error}", file=sys.stderr)
        raise SystemExit(2) from None


async def _serve(config: SchedulerConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    scheduler = SchedulerService(config)
    await scheduler.start()
    _settle_memory()
    log.info("serving on %s (port %d), policy %s", config.listen, scheduler.port, config.policy)
    stopping = asyncio.ensure_future(stop.wait())
    death = asyncio.ensure_future(scheduler.wait_for_death())
    try:
        await asyncio.wait({stopping, death}, return_when=asyncio.FIRST_COMPLETED)
        if death.done():
            log.critical("stopping", exc_info=death.exception())
    finally:
        stopping.cancel()
        failed = death.done() and isinstance(death.exception(), TaskDied)
        death.cancel()
        await scheduler.stop()
    return 1 if failed else 0


def _settle_memory() -> None:
    """Have the garbage collector look at less, less often: what is here now stays, and little of what comes is cyclic.

    A step of a few hundred streams makes thousands of short-lived objects; the default collects at every 700.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


if __name__ == "__main__":
    main()
