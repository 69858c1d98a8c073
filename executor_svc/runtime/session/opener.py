"""Opens sessions: dials the schedulers' addresses until one accepts the registration."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from executor_svc.runtime.link import Dialer, Link, LinkBroken, LinkRefused, NotLeader
from executor_svc.runtime.messages.registration import AutomaticRole, HeldAttempt, Identity, Register, Welcome
from executor_svc.runtime.session.backoff import Backoff
from executor_svc.runtime.session.dialling import Connection, Dialling
from executor_svc.runtime.session.timings import SessionTimings

log = logging.getLogger(__name__)

WANTED_RETRY_S = 0.25
"""Longest pause before dialling again while attempts are held, or a scheduler may be about to start again."""

RESTART_S = 30.0
"""How long after the end of a session its scheduler may be about to start again, which waits for its instances."""

STANDBY_RETRY_S = 0.25
"""Longest pause before asking a scheduler again that stands by and does not say when."""


class RegistrationRefused(Exception):
    """Every scheduler refused this executor for a reason that does not change by trying again."""


@dataclass(slots=True)
class _Turn:
    """What came of dialling every address once, without a session."""

    refusals: dict[str, str]  # by address: those that stay, until it is dialled again
    leaders: list[str] = field(default_factory=list)  # addresses that schedulers named which do not lead
    retry_s: float = math.inf  # after which they are to be asked again


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
        automatic_role: Callable[[], AutomaticRole | None],
        timings: SessionTimings,
    ) -> None:
        self.epoch_floor = 0
        self._identity = identity
        self._addresses = tuple(addresses)
        self._dialer = dialer
        self._held = held
        self._automatic_role = automatic_role
        self._timings = timings
        self._backoff = Backoff(first_s=timings.first_retry_s, most_s=timings.most_retry_s)
        self._failures: dict[str, str] = {}  # latest reason for a failure by address, since the last session
        self._had_session = False
        self._resume_secret = b""  # of the latest session

    def reset(self) -> None:
        """Start over with the shortest pause and warn of every failure again.  Call when a session began."""
        self._backoff.reset()
        self._failures.clear()

    async def open(self) -> tuple[Link, Welcome]:
        """Dial the addresses, that of the last session first, again and again until one accepts the registration.

        An address that does not answer holds up nobody: the others are dialled meanwhile.

        Raises RegistrationRefused when every address refused it for good.  An executor that was accepted once is not
        refused for good because of its credentials: keys and certificates change while the engine runs.
        """
        dialling, refusals = Dialling(), dict[str, str]()
        wanted_until = asyncio.get_running_loop().time() + RESTART_S if self._had_session else -math.inf
        try:
            while True:
                turn = _Turn(refusals)
                if (connection := await self._dial_all(dialling, turn)) is not None:
                    return self._won(connection)
                if len(refusals) == len(self._addresses):
                    raise RegistrationRefused("; ".join(f"{each}: {refusals[each]}" for each in self._addresses))
                self._prefer(turn.leaders)
                if (connection := await dialling.first(min(self._pause_s(wanted_until), turn.retry_s))) is not None:
                    return self._won(connection)
        finally:
            await dialling.give_up()

    async def _dial_all(self, dialling: Dialling, turn: _Turn) -> Connection | None:
        """Dial each address that is not being dialled, a moment after the one before or as soon as that failed."""
        for address in self._addresses:
            if address not in dialling:
                dialling.start(address, self._try(address, turn))
                connection = await dialling.first(self._timings.dial_next_s, of=address)
                if connection is not None:
                    return connection
        return None

    async def _try(self, address: str, turn: _Turn) -> Connection | None:
        """Dial one address; note in ``turn`` why it gives no session."""
        turn.refusals.pop(address, None)
        try:
            return await self._dial(address)
        except NotLeader as standby:
            turn.leaders.extend(standby.leaders)
            turn.retry_s = min(turn.retry_s, standby.retry_s or STANDBY_RETRY_S)
            self._log_failure(address, str(standby), logging.INFO)
        except LinkBroken as broken:
            self._log_failure(address, str(broken))
        except LinkRefused as refused:
            self._log_failure(address, f"registration refused: {refused.message}", logging.ERROR)
            if refused.permanent and not (refused.about_credentials and self._resume_secret):
                turn.refusals[address] = refused.message
        return None

    def _won(self, connection: Connection) -> tuple[Link, Welcome]:
        self._prefer([connection.address])
        self._had_session, self._resume_secret = True, connection.welcome.resume_secret
        log.info("registered with scheduler %s, epoch %d", connection.address, connection.welcome.epoch)
        return connection.link, connection.welcome

    def _prefer(self, first: Sequence[str]) -> None:
        """Dial these addresses before the others, as far as they are configured."""
        self._addresses = tuple(sorted(self._addresses, key=lambda address: address not in first))

    def _pause_s(self, wanted_until: float) -> float:
        """Return the next pause: somebody waits for the output of attempts that are held."""
        pause_s = self._backoff.next()
        wanted = self._held() or asyncio.get_running_loop().time() < wanted_until
        return min(pause_s, WANTED_RETRY_S) if wanted else pause_s

    def _log_failure(self, address: str, reason: str, level: int = logging.WARNING) -> None:
        """Log once per reason: a scheduler that is away for long would fill the log."""
        known = self._failures.get(address) == reason
        self._failures[address] = reason
        log.log(logging.DEBUG if known else level, "no session with scheduler %s: %s", address, reason)

    async def _dial(self, address: str) -> Connection:
        """Dial one address.  Raises LinkBroken, LinkRefused."""
        link = self._dialer.dial(address)
        try:
            async with asyncio.timeout(self._timings.dial_timeout_s):
                held, secret = self._held(), self._resume_secret
                role = self._automatic_role()
                welcome = await link.register(
                    Register(identity=self._identity, resume_secret=secret, held=held, automatic_role=role)
                )
                self._refuse_older(welcome)
                await link.open_outputs(welcome.session_id)
        except TimeoutError:
            await link.close()
            raise LinkBroken(f"no answer in {self._timings.dial_timeout_s:g} s") from None
        except BaseException:
            await link.close()
            raise
        return Connection(address, link, welcome)

    def _refuse_older(self, welcome: Welcome) -> None:
        """Note the highest epoch seen.  Raises LinkRefused for an older one."""
        if welcome.epoch < self.epoch_floor:
            raise LinkRefused(
                "STALE_EPOCH",
                f"the scheduler's epoch {welcome.epoch} is older than the last session's, {self.epoch_floor}",
                permanent=False,
            )
        self.epoch_floor = welcome.epoch
