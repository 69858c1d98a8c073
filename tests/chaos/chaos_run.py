"""One run of faults under load, to its end, and its report."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.faults import Faults
from tests.chaos.losses import unexplained
from tests.chaos.report import Report
from tests.chaos.restart_load import RestartLoad
from tests.support.process_supervisor import ProcessSupervisor
from tests.support.service_process import ServiceProcess


def _words(wrong: BaseException) -> list[str]:
    """Return what the exceptions of a group say, and of groups in it."""
    if isinstance(wrong, BaseExceptionGroup):
        return [words for each in wrong.exceptions for words in _words(each)]
    return [str(wrong)]


async def play(
    processes: Sequence[ServiceProcess], load: RestartLoad, faults: Faults, report: Report, seconds: float
) -> None:
    """Strike for so long, starting processes again that end; then wait until every request has ended.

    Raises AssertionError for what is wrong, losses that nothing explains among it.  The report is printed in any case,
    and added to the file that ``SAGE_CHAOS_REPORT`` names.
    """
    try:
        async with ProcessSupervisor(processes), asyncio.TaskGroup() as group:
            group.create_task(load.run(), name="load")
            await faults.strike(seconds)
            load.stop()
        report.wrong += unexplained(load.tally.losses, faults.gaps.faults)
    except* AssertionError as wrong:
        report.wrong += _words(wrong)
    finally:
        print(report)
        if path := os.environ.get("SAGE_CHAOS_REPORT"):
            report.append_to(Path(path))
    assert not report.wrong, "\n".join(report.wrong)
