"""The exceptions of the SDK.

::

    SageError
    ├── ConfigurationError          invalid settings of the client (also a ValueError)
    │   └── TlsRequiredError        the address is not loopback and TLS is off   .address
    ├── InvalidRequestError         invalid request; names every field           .violations
    │   ├── UnknownPolicyError
    │   └── BatchFailedError        the lines of a batch cannot be run           .batch
    ├── NotFoundError
    │   ├── UnknownModelError
    │   ├── RequestNotFoundError
    │   ├── BatchNotFoundError
    │   ├── StoredFileNotFoundError
    │   └── InstanceNotFoundError
    ├── RequestConflictError        the id is in use with other content
    ├── InvalidStateError           not allowed in the object's current state, or in a forked process
    ├── AuthenticationError         the token is missing, invalid or without permission
    ├── NotSupportedError           the server does not implement this
    │   └── NoJournalError          the scheduler has no journal, so it takes no detached work and no batches
    ├── TryAgainError               not possible now; a retry may succeed        .retry_after_s
    │   ├── QueueFullError
    │   ├── TenantLimitError        a limit of the tenant
    │   ├── OverloadedError         not enough capacity in time, at once or while it waited
    │   ├── LimitReachedError       a limit of the scheduler other than a queue's
    │   ├── NoInstanceError
    │   ├── ShuttingDownError
    │   ├── RecoveringError         the scheduler started just now; the SDK asks again by itself
    │   ├── NotLeaderError          another scheduler leads, or none; the SDK asks the next one    .leaders
    │   ├── JournalUnavailableError the scheduler's journal cannot be used now, or there is none
    │   └── UnavailableError        no connection, or it broke and reattaching failed
    ├── RequestEndedError           an accepted request ended without finishing
    │   ├── DeadlineExceededError
    │   ├── RequestCancelledError
    │   ├── GenerationFailedError
    │   ├── ModelChangedError       the model that began the output is served no more
    │   ├── OutputLostError         nobody holds what was delivered any more
    │   └── StreamLostError         the server lost the request after it delivered a part of it
    ├── OutputInvalidError          the output of a finished request does not fit its response_format   .partial
    ├── WaitTimeoutError            the client's timeout passed (also a TimeoutError)
    ├── ProtocolError               the server violated the contract
    └── InternalError               an error of the server, or a status without a known reason
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sage_client._batches import Batch, BatchFault
from sage_client._partial_output import PartialOutput


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One invalid field of a request."""

    field: str  # path in the contract, e.g. "spec.sampling.top_p"
    description: str


class SageError(Exception):
    """Base of all exceptions of the SDK.  ``str()`` is a sentence for people.

    Attributes:
        reason: stable name from the server's error catalogue; empty if there is none.
        status: name of the gRPC status; empty if no call was made.
        request_id: id of the request; empty if the error concerns none.
        metadata: further details from the server, by key.
        partial: what a stream had delivered before it failed; None if that is nothing, or if no stream failed.
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
        self.partial: PartialOutput | None = None


class ConfigurationError(SageError, ValueError):
    """The client's settings are invalid: an address, a certificate, a limit."""


class TlsRequiredError(ConfigurationError):
    """The address is not a loopback address, and neither TLS nor ``insecure`` was set.

    Attributes:
        address: of the scheduler.
    """

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is not a loopback address and needs TLS: give a certificate authority (tls_ca), use "
            "the system's (tls), or allow a connection without TLS (insecure)"
        )
        self.address = address


class InvalidRequestError(SageError):
    """The request is invalid; an unchanged retry cannot succeed.

    Attributes:
        violations: every invalid field.
    """

    violations: tuple[FieldViolation, ...] = ()

    @classmethod
    def of(cls, violations: Sequence[FieldViolation]) -> InvalidRequestError:
        """Return the error for fields that the client found invalid before sending."""
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        error = cls(message, reason="INVALID_REQUEST")
        error.violations = tuple(violations)
        return error


class UnknownPolicyError(InvalidRequestError):
    """The scheduler has no policy of this name."""


class BatchFailedError(InvalidRequestError):
    """The lines of a batch cannot be run; ``violations`` names those at fault.

    Attributes:
        batch: as it is; None only for an error that was not made by ``of_batch``.
    """

    batch: Batch | None = None

    @classmethod
    def of_batch(cls, batch: Batch) -> BatchFailedError:
        """Return the error for a batch that failed."""
        faults = "; ".join(f"{_line(each)}: {each.message}" for each in batch.faults) or "its input cannot be used"
        error = cls(f"batch {batch.batch_id}: {faults}", reason="INVALID_REQUEST")
        error.batch = batch
        error.violations = tuple(FieldViolation(field=_line(each), description=each.message) for each in batch.faults)
        return error


def _line(fault: BatchFault) -> str:
    where = f"line {fault.line}" if fault.line is not None else "file"
    return f"{where}, {fault.param}" if fault.param else where


class NotFoundError(SageError):
    """The model, request, instance, batch or file does not exist."""


class UnknownModelError(NotFoundError):
    """No instance serves a model of this name."""


class RequestNotFoundError(NotFoundError):
    """The request never existed, or the scheduler no longer has a record of it."""


class BatchNotFoundError(NotFoundError):
    """The batch never existed, or was deleted after its time."""


class StoredFileNotFoundError(NotFoundError):
    """The file that the scheduler should have never existed, or was deleted."""


class InstanceNotFoundError(NotFoundError):
    """No instance has this id."""


class RequestConflictError(SageError):
    """The id of a request, a batch or a file is in use by one with other content."""


class InvalidStateError(SageError):
    """The object's current state does not allow the call, or the process was forked after a client's first call."""


class AuthenticationError(SageError):
    """The token is missing, invalid or without permission."""


class NotSupportedError(SageError):
    """The server does not implement the call."""


class NoJournalError(NotSupportedError):
    """The scheduler has no journal, so it takes no detached work and no batches."""


class TryAgainError(SageError):
    """The fleet's state does not allow the call now; a retry may succeed.

    Attributes:
        retry_after_s: seconds to wait before a retry; None if the server does not say.
    """

    retry_after_s: float | None = None


class QueueFullError(TryAgainError):
    """The model's queue is full.  ``retry_after_s`` is the expected wait."""


class TenantLimitError(TryAgainError):
    """A limit of the tenant is reached: requests that wait, or tokens per minute."""


class OverloadedError(TryAgainError):
    """There was not enough capacity in time.

    The deadline could not be met, the request made room for another in a full queue, or it waited as long as its class
    may.  ``retry_after_s`` is the expected wait.
    """


class LimitReachedError(TryAgainError):
    """A limit of the scheduler other than a queue's is reached."""


class NoInstanceError(TryAgainError):
    """No instance can serve the model now, and the request did not ask to wait."""


class ShuttingDownError(TryAgainError):
    """The scheduler is shutting down."""


class RecoveringError(TryAgainError):
    """The scheduler started just now, and the request may still come back with the executor that runs it."""


class NotLeaderError(TryAgainError):
    """The scheduler stands by: another one leads, or none can.  The SDK asks the next address by itself."""

    @property
    def leaders(self) -> tuple[str, ...]:
        """Addresses of the scheduler that leads, as it states them; empty if it is not known."""
        return tuple(each for each in self.metadata.get("leader", "").split(",") if each)


class JournalUnavailableError(TryAgainError):
    """The scheduler's journal is full, slow, stopped or not configured, and the call needs it."""


class UnavailableError(TryAgainError):
    """No connection to the scheduler, or it broke and reattaching failed."""


class RequestEndedError(SageError):
    """An accepted request ended without finishing."""


class DeadlineExceededError(RequestEndedError):
    """The request's deadline passed."""


class RequestCancelledError(RequestEndedError):
    """The request was cancelled."""


class GenerationFailedError(RequestEndedError):
    """Every attempt failed, or a failover could not reproduce the delivered tokens."""


class ModelChangedError(RequestEndedError):
    """After a failover, only instances that run other weights or another tokenizer served the model's name."""


class OutputLostError(RequestEndedError):
    """What this client has of the output is not what the request would go on from: it would get other tokens."""


class StreamLostError(RequestEndedError):
    """After a broken connection, the server had lost a request of which it had delivered a part."""


class WaitTimeoutError(SageError, TimeoutError):
    """The client's timeout passed; the outcome on the server is unknown."""


class OutputInvalidError(SageError, ValueError):
    """The output of a finished request does not fit the class given as ``response_format``."""


class ProtocolError(SageError):
    """The server violated the contract; the rest of the stream is unusable."""


class InternalError(SageError):
    """An error of the server, or a status without a known reason."""
