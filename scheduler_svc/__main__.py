"""Start here: ``python -m scheduler_svc``."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from sage_common.early_signals import ignore_hangups
from sage_common.garbage import leave_out_present_objects, start_and_end_fast

ignore_hangups()  # the imports below take a second, in which SIGHUP would end the process
start_and_end_fast()

try:
    from sage_common.addresses import is_loopback
    from sage_common.configuration import ConfigError, exit_for
    from sage_common.event_loop import loop_factory
    from sage_telemetry.prometheus import CannotServe
    from scheduler_svc.config import PROGRAM, SchedulerConfig, load_or_exit
    from scheduler_svc.domain.build import build_name
    from scheduler_svc.domain.errors import UnknownPolicy
    from scheduler_svc.domain.policies.catalogue import PolicyLoadError
    from scheduler_svc.recording.recording import CannotRecord
    from scheduler_svc.storage.journal.errors import UnusableJournal
    from scheduler_svc.storage.state_directory import UnusableState
    from scheduler_svc.telemetry.logs import configure_logging
    from scheduler_svc.transport.server import ListenError
    from scheduler_svc.wiring.scheduler_service import SchedulerService
    from scheduler_svc.wiring.standby_service import StandbyService
except ModuleNotFoundError as absent:
    sys.exit(f"sage-scheduler: {absent.name} is not installed: pip install 'sage-control-plane[scheduler]'")

CANNOT_START = (
    UnknownPolicy,
    PolicyLoadError,
    ListenError,
    CannotServe,
    CannotRecord,
    UnusableState,
    UnusableJournal,
)
"""What the configuration is to blame for: said in one line, without a stack."""

log = logging.getLogger("scheduler_svc")


def main() -> None:
    """Run the scheduler until SIGTERM or SIGINT.  SIGHUP has certificates and keys read again.

    Exit status: 0 after SIGTERM or SIGINT, 1 when a background task died, 2 for a bad configuration.
    """
    config = load_or_exit(sys.argv[1:])
    configure_logging(config.log_level, json_lines=config.log_format == "json")
    try:
        with asyncio.Runner(loop_factory=loop_factory(uvloop=config.uvloop)) as runner:
            status = runner.run(_serve(config))
    except UnknownPolicy as error:
        exit_for(ConfigError(f"policy: {error}"), PROGRAM)
    except CANNOT_START as error:
        exit_for(error, PROGRAM)
    raise SystemExit(status)


async def _serve(config: SchedulerConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    scheduler = SchedulerService(config) if config.leader_lease_s is None else StandbyService(config)
    loop.add_signal_handler(signal.SIGHUP, scheduler.reload)
    await scheduler.start()
    leave_out_present_objects()
    serving = config.listen, scheduler.port, config.policy, build_name()
    log.info("serving on %s (port %d), policy %s, the domain %s", *serving)
    for key, port in scheduler.ports.items():
        if key != "listen":
            log.info("%s: serving on %s (port %d)", key, config.listeners[key], port)
    if not config.access.on and not all(is_loopback(address) for address in config.listeners.values()):
        log.warning("no identities are configured: every caller may do everything")
    if isinstance(scheduler, SchedulerService) and (warning := scheduler.control.scheduler.policy_warning):
        log.warning("%s", warning)
    stopping = asyncio.ensure_future(stop.wait())
    failing = asyncio.ensure_future(scheduler.failure())
    try:
        await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done() and isinstance(why := failing.result().__cause__, CANNOT_START):
            raise why  # what a scheduler that stands by finds out only once its database answers
        if failing.done():
            log.critical("stopping: %s", failing.result(), exc_info=failing.result().__cause__)
        return 1 if failing.done() else 0
    finally:
        stopping.cancel()
        failing.cancel()
        await scheduler.stop()


if __name__ == "__main__":
    main()
