"""Opens sessions: dials the schedulers' addresses in turn until one accepts the registration."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from executor_svc.runtime.link import Dialer, Link, LinkBroken, LinkRefused
from executor_svc.runtime.messages.registration import HeldAttempt, Identity, Register, Welcome
from executor_svc.runtime.session.backoff import Backoff
from executor_svc.runtime.session.timings import SessionTimings

log = logging.getLogger(__name__)

HOLDING_RETRY_S = 1.0
"""Longest pause before dialling again while attempts are held."""


class RegistrationRefused(Exception):
    """Every scheduler refused this executor for a reason that does not change by trying again."""


class SessionOpener:
    """Dials, registers and opens the output stream.

    ``epoch_floor``: a scheduler with an older epoch is refused, because attempts of this epoch may still be wanted; 0
    accepts every epoch.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        addresses: Sequence[str],
        dialer: Dialer,
        held: Callable[[], tuple[HeldAttempt, ...]],
        timings: SessionTimings,
    ) -> None:
        self.epoch_floor = 0
        self._identity = identity
        self._addresses = tuple(addresses)
        self._dialer = dialer
        self._held = held
        self._timings = timings
        self._backoff = Backoff(first_s=timings.first_retry_s, most_s=timings.most_retry_s)
        self._failures: dict[str, str] = {}  # latest reason for a failure by address, since the last session
        self._resume_secret = b""  # of the latest session

    def reset(self) -> None:
        """Start over with the shortest pause and warn of every failure again.  Call when a session began."""
        self._backoff.reset()
        self._failures.clear()

    async def open(self) -> tuple[Link, Welcome]:
        """Try the addresses in turn, that of the last session first, until one accepts the registration.

        Raises RegistrationRefused when every address refused it for good.  An executor that was accepted once is not
        refused for good because of its credentials: keys and certificates change while the engine runs.
        """
        while True:
            refusals: list[str] = []
            for address in self._addresses:
                try:
                    connection = await self._dial(address)
                    self._addresses = (address, *(other for other in self._addresses if other != address))
                    return connection
                except LinkBroken as broken:
                    self._log_failure(address, str(broken))
                except LinkRefused as refused:
                    self._log_failure(address, f"registration refused: {refused.message}", logging.ERROR)
                    if refused.permanent and not (refused.about_credentials and self._resume_secret):
                        refusals.append(f"{address}: {refused.message}")
                await asyncio.sleep(self._pause_s())
            if len(refusals) == len(self._addresses):
                raise RegistrationRefused("; ".join(refusals))

    def _pause_s(self) -> float:
        """Return the next pause: while attempts are held, somebody waits for their output."""
        pause_s = self._backoff.next()
        return min(pause_s, HOLDING_RETRY_S) if self._held() else pause_s

    def _log_failure(self, address: str, reason: str, level: int = logging.WARNING) -> None:
        """Log once per reason: a scheduler that is away for long would fill the log."""
        known = self._failures.get(address) == reason
        self._failures[address] = reason
        log.log(logging.DEBUG if known else level, "no session with scheduler %s: %s", address, reason)

    async def _dial(self, address: str) -> tuple[Link, Welcome]:
        """Dial one address.  Raises LinkBroken, LinkRefused."""
        link = self._dialer.dial(address)
        try:
            async with asyncio.timeout(self._timings.dial_timeout_s):
                held, secret = self._held(), self._resume_secret
                welcome = await link.register(Register(identity=self._identity, resume_secret=secret, held=held))
                self._refuse_older(welcome)
                self._resume_secret = welcome.resume_secret
                await link.open_outputs(welcome.session_id)
        except TimeoutError:
            await link.close()
            raise LinkBroken(f"no answer in {self._timings.dial_timeout_s:g} s") from None
        except BaseException:
            await link.close()
            raise
        log.info("registered with scheduler %s, epoch %d", address, welcome.epoch)
        return link, welcome

    def _refuse_older(self, welcome: Welcome) -> None:
        if welcome.epoch < self.epoch_floor:
            raise LinkRefused(
                "STALE_EPOCH",
                f"the scheduler's epoch {welcome.epoch} is older than the last session's, {self.epoch_floor}",
                permanent=False,
            )
