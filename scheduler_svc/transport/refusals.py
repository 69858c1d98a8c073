"""What happens with an error that refuses a call, or one request of a stream: status, log, audit log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import grpc
from google.rpc import status_pb2

from scheduler_svc.access.audit import Audit
from scheduler_svc.access.caller import caller
from scheduler_svc.access.identity import Denied
from scheduler_svc.transport.errors import to_status

log = logging.getLogger(__name__)


def answered(error: Exception, method: str, about: Callable[[], Mapping[str, str]]) -> status_pb2.Status:
    """Return the status that stands for ``error``; an INTERNAL one is logged with its stack.

    ``about`` makes the ``extra`` of the log line.
    """
    status = to_status(error)
    if status.code == grpc.StatusCode.INTERNAL.value[0]:
        log.error("call %s failed", method, exc_info=error, extra=about())
    # The outcome of a request is kept for clients that attach later, and what ended a call by timers that were
    # cancelled, until they would have run.  Tracebacks would keep the frames alive, and with them the prompt and all
    # that a scheduler had while it led.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return status


class Refusals:
    """Refuses requests of one stream, whose calls the interceptors do not see."""

    def __init__(self, method: str, audit: Audit, peer: str) -> None:
        self._method = method
        self._audit = audit
        self.peer = peer  # who calls, as an address

    def status(self, error: Exception, about: Mapping[str, str] | None = None) -> status_pb2.Status:
        """Return the status of a request that is refused; the audit log notes one that is refused for its caller.

        ``about``: the ``extra`` of a log line about the request.
        """
        if isinstance(error, Denied):
            self._audit.refused(caller().name, self.peer, self._method, str(error))
        return answered(error, self._method, lambda: about or {})
