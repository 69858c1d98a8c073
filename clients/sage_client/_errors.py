"""Everything the SDK raises.

::

    SageError
    ├── ConfigurationError          the client itself is set up wrongly (also a ValueError)
    ├── InvalidRequestError         the caller's fault; names every field        .violations
    │   └── UnknownPolicyError
    ├── NotFoundError
    │   ├── UnknownModelError
    │   ├── RequestNotFoundError
    │   └── InstanceNotFoundError
    ├── RequestConflictError        the id is taken by a request with other content
    ├── InvalidStateError           the object is in a state that does not allow this
    ├── AuthenticationError         the token is missing, wrong or not enough
    ├── NotSupportedError           the server does not implement this
    ├── TryAgainError               the fleet's state; later may be better       .retry_after_s
    │   ├── QueueFullError
    │   ├── LimitReachedError       the scheduler keeps no more of these
    │   ├── NoInstanceError
    │   ├── ShuttingDownError
    │   └── UnavailableError        no connection, or it broke and could not be taken up again
    ├── RequestEndedError           an accepted request ended other than by itself
    │   ├── DeadlineExceededError
    │   ├── RequestCancelledError
    │   ├── GenerationFailedError
    │   └── StreamLostError         the server forgot the request after a part of it was delivered
    ├── WaitTimeoutError            the client's own bound passed (also a TimeoutError)
    ├── ProtocolError               the server sent what the contract does not allow
    └── InternalError               the server's fault, or a status without a known reason
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One field at fault."""

    field: str  # path in the contract, e.g. "spec.sampling.top_p"
    description: str


class SageError(Exception):
    """Base of all.  ``str()`` is a sentence for people.

    Attributes:
        reason: stable name from the server's error catalogue; empty where there is none.
        status: name of the gRPC status; empty where no call was made.
        request_id: of the request concerned; empty where there is none.
        metadata: what the server says beside the message, by key.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        status: str = "",
        request_id: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.status = status
        self.request_id = request_id
        self.metadata: dict[str, str] = dict(metadata or {})


class ConfigurationError(SageError, ValueError):
    """The client itself is set up wrongly: an address, a certificate, a bound."""


class InvalidRequestError(SageError):
    """The caller's fault: trying again as it is cannot help.

    Attributes:
        violations: every field at fault, at once.
    """

    violations: tuple[FieldViolation, ...] = ()

    @classmethod
    def of(cls, violations: Sequence[FieldViolation]) -> InvalidRequestError:
        """What the client notices itself, before it asks the server."""
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        error = cls(message, reason="INVALID_REQUEST")
        error.violations = tuple(violations)
        return error


class UnknownPolicyError(InvalidRequestError):
    """There is no policy of this name."""


class NotFoundError(SageError):
    """What was asked for is not there."""


class UnknownModelError(NotFoundError):
    """No instance serves a model of this name."""


class RequestNotFoundError(NotFoundError):
    """The request never existed or has left the server's record."""


class InstanceNotFoundError(NotFoundError):
    """There is no instance of this id."""


class RequestConflictError(SageError):
    """The id is taken by a request with other content."""


class InvalidStateError(SageError):
    """The object is in a state that does not allow this."""


class AuthenticationError(SageError):
    """The token is missing, wrong or not enough."""


class NotSupportedError(SageError):
    """The server does not implement this."""


class TryAgainError(SageError):
    """The fleet's state; later may be better.

    Attributes:
        retry_after_s: seconds after which trying again makes sense, where the server knows.
    """

    retry_after_s: float | None = None


class QueueFullError(TryAgainError):
    """The model's queue is at its bound.  ``retry_after_s`` is the expected wait."""


class LimitReachedError(TryAgainError):
    """The scheduler is at its bound of something other than a queue."""


class NoInstanceError(TryAgainError):
    """No instance can serve the model now, and the request did not ask to wait."""


class ShuttingDownError(TryAgainError):
    """The scheduler is going away."""


class UnavailableError(TryAgainError):
    """No connection to the scheduler, or it broke and could not be taken up again."""


class RequestEndedError(SageError):
    """An accepted request ended other than by itself."""


class DeadlineExceededError(RequestEndedError):
    """The request's own deadline passed."""


class RequestCancelledError(RequestEndedError):
    """The request was cancelled."""


class GenerationFailedError(RequestEndedError):
    """Every attempt failed, or a continuation could not be made equal to what was delivered."""


class StreamLostError(RequestEndedError):
    """After a broken connection the server no longer knew a request of which a part had been delivered."""


class WaitTimeoutError(SageError, TimeoutError):
    """The client's own bound passed; what the server did meanwhile is not known."""


class ProtocolError(SageError):
    """The server sent what the contract does not allow; the stream cannot be trusted further."""


class InternalError(SageError):
    """The server's fault, or a status without a known reason."""
