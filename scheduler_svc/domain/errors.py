"""The errors that callers can meet.  ``transport`` maps each to a gRPC status.

SchedulerError
├── InvalidRequest        the caller's fault; names every field
├── UnknownModel          names the models there are
├── RequestConflict       the id is taken by other content
├── RequestNotFound
├── BatchNotFound
├── FileNotFound          a file that is kept for a tenant
├── InstanceNotFound      names the instances there are
├── UnknownPolicy         names the policies there are, and the nearest
├── InvalidTransition     the object is in a state that does not allow this
├── QueueFull             carries the expected wait
├── TenantLimitReached    a limit of the request's tenant; names it and carries the expected wait
├── Overloaded            refused, or given up while it waited, for want of capacity; carries the expected wait
├── LimitReached          another bound of the scheduler is reached
├── NoInstance            nothing serves the model now
├── ShuttingDown          the scheduler is about to end
├── Recovering            the request may come back with an executor; carries when to ask again
├── NotLeader             another scheduler leads, or none; carries when to ask again, and where if that is known
├── JournalUnavailable    the journal is full, slow or stopped; carries when to ask again
├── NoJournal             the scheduler keeps nothing on disk, so it takes no detached work
├── OutputLost            what the caller has of the request's output is beyond what anyone holds
├── DeadlineExceeded
├── RequestCancelled
├── ModelChanged          the model that began the output is gone, others are served under its name
├── PolicyFailed          the policy's own code raised an error
└── GenerationFailed      every attempt failed, or a replay differed from what was delivered
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sage_common.near_names import names_instead


class SchedulerError(Exception):
    """Base of all errors here.  ``str()`` is a sentence for the caller that holds no secret and no prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldViolation:
    """One field at fault."""

    field: str  # path in the contract, e.g. "spec.sampling.top_p"
    description: str


class InvalidRequest(SchedulerError):
    """The request breaks the contract; names every field at fault.  Never retried."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))


class UnknownModel(SchedulerError):
    """No instance serves the requested model, and the configuration does not name it; names the models there are."""

    def __init__(self, model: str, known: Iterable[str], *, what: str = "model") -> None:
        self.model = model
        self.known = tuple(sorted(known))
        super().__init__(f"unknown {what} {model!r}{names_instead(model, self.known, title='served now')}")


class RequestConflict(SchedulerError):
    """The id is taken by a request with other content, or by another ``what``: a batch, a file."""

    def __init__(self, request_id: str, *, what: str = "request") -> None:
        self.request_id = request_id
        super().__init__(f"{what} id {request_id!r} is taken by a {what} with other content")


class RequestNotFound(SchedulerError):
    """There is no request of this id (any more)."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(f"no request {request_id!r}: it never existed, was refused, or has left the record")


class BatchNotFound(SchedulerError):
    """There is no batch of this id (any more)."""

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"no batch {batch_id!r}: it never existed, or was deleted after its time")


class FileNotFound(SchedulerError):
    """There is no file of this id (any more)."""

    def __init__(self, file_id: str) -> None:
        self.file_id = file_id
        super().__init__(f"no file {file_id!r}: it never existed, or was deleted")


class InstanceNotFound(SchedulerError):
    """There is no instance of this id; names the instances there are."""

    def __init__(self, instance_id: str, known: Iterable[str]) -> None:
        self.instance_id = instance_id
        super().__init__(f"no instance {instance_id!r}{names_instead(instance_id, sorted(known))}")


class UnknownPolicy(SchedulerError):
    """There is no policy of this name; names the policies there are, and the nearest."""

    def __init__(self, policy: str, known: Iterable[str]) -> None:
        self.policy = policy
        super().__init__(f"unknown policy {policy!r}{names_instead(policy, sorted(known))}")


class InvalidTransition(SchedulerError):
    """The object is in a state that does not allow the call."""

    def __init__(self, what: str, current: str, wanted: str) -> None:
        super().__init__(f"{what} is {current}, which cannot become {wanted}")


class QueueFull(SchedulerError):
    """A queue is at its bound; ``expected_wait_s``: seconds after which trying again makes sense.

    ``what``: the queue in words, if it is not that of ``model``.
    """

    def __init__(self, model: str, limit: int, expected_wait_s: float, *, what: str = "") -> None:
        self.model = model
        self.limit = limit
        self.expected_wait_s = expected_wait_s
        what = what or f"the queue of {model!r}"
        super().__init__(f"{what} is full ({limit} requests); expected wait {expected_wait_s:.1f} s")


class TenantLimitReached(SchedulerError):
    """A limit of the request's tenant is reached.

    ``limit_name``: its key in the configuration.  ``expected_wait_s``: seconds after which trying again makes sense.
    """

    def __init__(self, tenant: str, limit_name: str, limit: int, expected_wait_s: float) -> None:
        self.limit_name = limit_name
        self.limit = limit
        self.expected_wait_s = expected_wait_s
        whose = f"the tenant {tenant!r}" if tenant else "requests without a tenant"
        super().__init__(f"{whose}: {limit_name} ({limit}) is reached; expected wait {expected_wait_s:.1f} s")


class Overloaded(SchedulerError):
    """There is not enough capacity for the request in time, so it is refused, or given up while it waits.

    ``cause``: "displaced", "deadline" or "queue_wait", a metric label.  ``expected_wait_s``: seconds after which trying
    again makes sense.
    """

    def __init__(self, why: str, *, cause: str, expected_wait_s: float) -> None:
        self.cause = cause
        self.expected_wait_s = expected_wait_s
        super().__init__(f"{why}; expected wait {expected_wait_s:.1f} s")


class LimitReached(SchedulerError):
    """A bound of the scheduler is reached, such as the number of models.

    ``text``: a sentence that says so; by default one of ``limit`` and ``what``.
    """

    def __init__(self, what: str, limit: float, text: str = "") -> None:
        self.what = what
        self.limit = limit
        super().__init__(text or f"the scheduler is at its bound of {limit:.10g} {what}")


class NoInstance(SchedulerError):
    """No instance can serve the request now, and the caller did not ask to wait; or none ever can."""

    def __init__(self, model: str, why: str) -> None:
        self.model = model
        what = repr(model) if model else "any model"  # a request need not name the only model of a fleet
        super().__init__(f"no instance can serve {what} now: {why}")


class ShuttingDown(SchedulerError):
    """The scheduler shuts down: it takes no new request, and ends those that run too long."""

    def __init__(self) -> None:
        super().__init__("the scheduler is shutting down")


class Recovering(SchedulerError):
    """The scheduler started just now, and the request may still come back with an executor; or it hands over."""

    def __init__(
        self, expected_wait_s: float, why: str = "the scheduler started just now and waits for its executors"
    ) -> None:
        self.expected_wait_s = expected_wait_s
        super().__init__(f"{why}: ask again")


class NotLeader(SchedulerError):
    """The scheduler stands by, or leads no more.

    ``leader``: addresses of the one that leads, separated by commas; empty: it is not known.  ``epoch``: of it.
    """

    def __init__(self, expected_wait_s: float, *, leader: str = "", epoch: int = 0, why: str = "") -> None:
        self.expected_wait_s = expected_wait_s
        self.leader = leader
        self.epoch = epoch or ""
        who = f"{leader} leads" if leader else "no other one is known to lead"
        super().__init__(f"this scheduler does not lead{f' any more ({why})' if why else ''}; {who}: ask again")


class JournalUnavailable(SchedulerError):
    """The journal cannot take a write, or be read, now; ``why`` says what is wrong with it, in words.

    ``expected_wait_s``: seconds after which trying again makes sense.
    """

    def __init__(self, why: str, expected_wait_s: float = 2.0) -> None:
        self.why = why
        self.expected_wait_s = expected_wait_s
        super().__init__(f"the journal cannot be used now: {why}")


class NoJournal(SchedulerError):
    """The scheduler has no journal, so it takes neither detached work nor batches."""

    def __init__(self) -> None:
        super().__init__(
            "this scheduler has no journal, so it takes neither detached work nor batches: give it a state_dir"
        )


class OutputLost(SchedulerError):
    """What the caller has of the output is not what the request would go on from: it would get other tokens."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the request cannot be continued where this caller stopped: {why}")


class DeadlineExceeded(SchedulerError):
    """The request's deadline passed; says where the request was then."""

    def __init__(self, where: str) -> None:
        super().__init__(f"the deadline passed {where}")


class RequestCancelled(SchedulerError):
    """Somebody cancelled the request; says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"cancelled: {reason}" if reason else "cancelled")


class ModelChanged(SchedulerError):
    """The model that began the request's output is gone, and others are served under its name.

    ``began_with``: which it was, in words.
    """

    def __init__(self, model: str, began_with: str) -> None:
        self.model = model
        super().__init__(
            f"the output was begun by {model!r} with {began_with}, which no instance runs any more: "
            "those that serve the name now run another model, whose tokens would not continue it"
        )


class PolicyFailed(SchedulerError):
    """The policy's own code raised an error for the request, which is the ``__cause__``; the policy may be a plug-in's.

    The cause belongs in the log: the caller is told no more than INTERNAL.
    """

    def __init__(self, policy: str) -> None:
        self.policy = policy
        super().__init__(f"internal error: the policy {policy!r} failed; the scheduler's log has the cause")


class GenerationFailed(SchedulerError):
    """Every attempt at the request failed, or a replay differed from what was delivered.

    ``request_is_at_fault``: engines die of it, so the same request must not be tried again.
    """

    def __init__(self, message: str, *, attempts: int, request_is_at_fault: bool = False) -> None:
        self.attempts = attempts
        self.request_is_at_fault = request_is_at_fault
        super().__init__(f"{message} (after {attempts} attempt{'s' if attempts != 1 else ''})")
