"""Those who read the output of requests: they come, go on from a position, leave, or lose their connection."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.control.requests.grace import Grace
from scheduler_svc.control.requests.known_requests import KnownRequests
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import CLIENT_GONE
from scheduler_svc.control.requests.output_reader import OutputReader
from scheduler_svc.control.requests.read_from import ReadFrom, outside
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, Recovering, RequestCancelled
from scheduler_svc.domain.request import RequestKey


class Readers:
    """Attaches readers to requests, and ends requests that nobody reads any more and that are not detached."""

    def __init__(self, requests: RequestTable, known: KnownRequests, recovery: Recovery, grace: Grace) -> None:
        self._requests = requests
        self._known = known
        self._recovery = recovery
        self._grace = grace

    def attach(
        self,
        key: RequestKey,
        reader: OutputReader,
        after_token: int,
        after_attempt: tuple[int, int] | None = None,
        *,
        after: Sequence[ReadFrom] = (),
        takes_choices: bool = False,
    ) -> None:
        """Have ``reader`` read a request that is live or in the record from a position on.

        ``after_attempt``: epoch and number of the attempt that made the last token that the reader has, if known.
        ``after``: the same of further choices.  ``takes_choices``: whether the reader tells choices apart.
        Raises RequestNotFound, Recovering, OutputLost, InvalidRequest.
        """
        live = self._known.get(key)
        if live.choices is not None and not takes_choices:
            what = f"is not set; the request has {len(live.members)} choices"
            raise InvalidRequest([FieldViolation(field="takes_choices", description=what)])
        self.begin(live, reader, after_token, after_attempt, after)

    def begin(
        self,
        live: LiveRequest,
        reader: OutputReader,
        after_token: int,
        after_attempt: tuple[int, int] | None,
        after: Sequence[ReadFrom],
    ) -> None:
        """Have ``reader`` read a known request; see ``attach``."""
        members = live.members
        if live.choices is not None and live.choices.missing:
            raise Recovering(self._recovery.retry_s)
        if violations := list(outside(after, len(members))):
            raise InvalidRequest(violations)
        for each in (ReadFrom(choice=0, after_token=after_token, after_attempt=after_attempt), *after):
            if each.after_token:
                self._recovery.check_position(members[each.choice], each.after_token, each.after_attempt)
            self._recovery.check_logprobs(members[each.choice], each.after_token)
        self._grace.end(live)
        reader.begin(live, after_token=after_token, attached=True, after=after)

    def leave(self, reader: OutputReader, why: str = CLIENT_GONE) -> None:
        """Note that a client reads no more; cancel the request if no client reads it and it is not detached."""
        reader.close()
        if _unread(reader.live):
            self._requests.end(reader.live, RequestCancelled(why))

    def leave_soon(self, reader: OutputReader) -> None:
        """Note that a client reads no more, as ``leave`` does: of many at once, a few end per turn of the event loop.

        A reader that comes before a request's turn keeps it.
        """
        reader.close()
        if _unread(reader.live):
            self._grace.begin(reader.live, 0.0)

    def lose(self, reader: OutputReader) -> None:
        """Note that a client's session broke: what ``leave`` would cancel waits for a reader during the grace."""
        reader.close()
        if _unread(reader.live):
            self._grace.begin(reader.live)


def _unread(live: LiveRequest) -> bool:
    """Return whether a request goes on though no client reads it, and none asked for that."""
    return not live.readers and not live.detached and not live.all_ended
