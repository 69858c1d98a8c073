"""Control's ExecutorLink, implemented by the two streams of a session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.attempts.attempt_names import AttemptNames
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource
from scheduler_svc.domain.role_change import RoleChange
from scheduler_svc.transport.adapters import source_to_wire
from scheduler_svc.transport.assign import fill_assign
from scheduler_svc.transport.automatic_roles import kept_role_to_wire
from scheduler_svc.transport.control_outbox import OUTBOX_BYTES, OUTBOX_LIMIT, ControlOutbox
from scheduler_svc.transport.outbox import Outbox, Overflow

log = logging.getLogger(__name__)

ACKNOWLEDGE_AFTER_S = 0.01
"""How long an acknowledgement waits for others.  Nothing waits for it but the memory of the executor."""


class StreamLink:
    """The scheduler's end of one executor's session: converts control's commands and queues them.

    No method waits.  An executor that leaves OUTBOX_LIMIT messages unread has its session closed as broken.
    """

    def __init__(
        self,
        instance_id: str,
        *,
        epoch: int,
        owner: str,
        names: AttemptNames | None = None,
        proofs: Proofs | None = None,
        batches: bool = False,
    ) -> None:
        """Make the link of a session that begins.

        ``names``: of adopted attempts.  ``proofs``: None: this executor holds nothing for the next scheduler.
        ``batches``: this executor reads Assigns.
        """
        self._instance_id = instance_id
        self.owner = owner  # name of the identity that registered: both streams are its own
        self._epoch = epoch
        self._names = names or AttemptNames()
        self._proofs = proofs
        self.control = ControlOutbox(batches=batches)
        self.outputs = _outputs_outbox()
        self.stuck = asyncio.Event()  # set when the executor does not read: both streams end, whatever they wait for
        self._acks: list[executor_pb2.OutputAck] = []

    def new_outputs(self) -> Outbox[executor_pb2.OutputsResponse]:
        """Return the outbox of an output stream that opens now; the stream before it ends."""
        self.outputs.close("replaced by a newer output stream")
        self.outputs = _outputs_outbox()
        return self.outputs

    def assign(self, order: AssignOrder) -> None:
        """Send a decision's Assign."""
        message = executor_pb2.ControlResponse()
        fill_assign(message.assign, order, self._instance_id, self._proofs)
        self._send(message)

    def cancel(self, attempt_number: int, reason: str) -> None:
        """Tell the executor to stop an attempt."""
        attempt = self.attempt(attempt_number)
        self._send(executor_pb2.ControlResponse(cancel=executor_pb2.Cancel(attempt=attempt, reason=reason)))

    def drain(self, *, resume: bool) -> None:
        """Tell the executor to take no new work, or with ``resume`` to take work again."""
        self._send(executor_pb2.ControlResponse(drain=executor_pb2.Drain(resume=resume)))

    def resend(self, attempt_number: int, from_index: int) -> None:
        """Ask for an attempt's output again, from output position ``from_index`` on."""
        attempt = self.attempt(attempt_number)
        resume = executor_pb2.Resume(attempt=attempt, from_index=from_index)
        self._send(executor_pb2.ControlResponse(resume=resume))

    def release_kv(self, number: int, params: bytes) -> None:
        """Ask the engine to have KV blocks freed that no decode leg will fetch.

        ``number`` comes back in KvReleased; ``params`` are those of the prefill leg's end.
        """
        release = executor_pb2.ReleaseKv(number=number, kv_transfer_params=params)
        self._send(executor_pb2.ControlResponse(release_kv=release))

    def fetch_assign(self, epoch: int, number: int) -> None:
        """Ask for the Assign of an attempt that another scheduler began."""
        attempt = common_pb2.Attempt(epoch=epoch, number=number)
        self._send(executor_pb2.ControlResponse(fetch_assign=executor_pb2.FetchAssign(attempt=attempt)))

    def resend_named(self, epoch: int, number: int, from_index: int) -> None:
        """Ask for the end of an attempt again whose number here is forgotten, and for its output from a position on."""
        attempt = common_pb2.Attempt(epoch=epoch, number=number)
        resume = executor_pb2.Resume(attempt=attempt, from_index=from_index)
        self._send(executor_pb2.ControlResponse(resume=resume))

    def cancel_named(self, epoch: int, number: int, reason: str) -> None:
        """Tell the executor to stop an attempt that another scheduler began."""
        attempt = common_pb2.Attempt(epoch=epoch, number=number)
        self._send(executor_pb2.ControlResponse(cancel=executor_pb2.Cancel(attempt=attempt, reason=reason)))

    def want_tokenizer(self, tokenizer_hash: str) -> None:
        """Ask for the tokenizer files of this SHA-256 hash (hex)."""
        wanted = executor_pb2.TokenizerWanted(tokenizer_hash=tokenizer_hash)
        self._send(executor_pb2.ControlResponse(tokenizer_wanted=wanted))

    def want_adapters(self, number: int, sources: Sequence[AdapterSource]) -> None:
        """Tell the executor which adapters its engine is to hold beside those from its start."""
        wanted = executor_pb2.AdaptersWanted(number=number, adapters=[source_to_wire(each) for each in sources])
        self._send(executor_pb2.ControlResponse(adapters_wanted=wanted))

    def want_sleep(self, number: int, *, asleep: bool) -> None:
        """Tell the executor whether its engine is to sleep."""
        wanted = executor_pb2.SleepWanted(number=number, asleep=asleep)
        self._send(executor_pb2.ControlResponse(sleep_wanted=wanted))

    def keep_role(self, change: RoleChange | None, age_s: float) -> None:
        """Tell the executor which role to keep for the next scheduler; None: none."""
        self._send(executor_pb2.ControlResponse(automatic_role=kept_role_to_wire(change, age_s)))

    def acknowledge_heartbeat(self, number: int) -> None:
        """Answer heartbeat ``number``, which renews the lease."""
        self._send(executor_pb2.ControlResponse(heartbeat_ack=executor_pb2.HeartbeatAck(number=number)))

    def acknowledge(self, attempt_number: int, tokens: int, *, ended: bool, epoch: int | None = None) -> None:
        """Confirm an attempt's output below position ``tokens``, and its end if ``ended``; ``epoch``: None for ours.

        All acknowledgements within ACKNOWLEDGE_AFTER_S travel in one message.
        """
        if not self._acks:
            asyncio.get_running_loop().call_later(ACKNOWLEDGE_AFTER_S, self._flush_acks)
        attempt = self.attempt(attempt_number)
        if epoch is not None:
            attempt = common_pb2.Attempt(epoch=epoch, number=attempt_number)
        self._acks.append(
            executor_pb2.OutputAck(attempt_number=attempt.number, epoch=attempt.epoch, tokens=tokens, ended=ended)
        )

    def close(self, reason: str) -> None:
        """End both streams once what is queued has been written."""
        self._flush_acks()
        self.control.close(reason)
        self.outputs.close(reason)

    def _flush_acks(self) -> None:
        if self._acks:
            acks, self._acks = self._acks, []
            self._put(lambda: self.outputs.put(executor_pb2.OutputsResponse(acks=acks)))

    def _send(self, message: executor_pb2.ControlResponse) -> None:
        self._put(lambda: self.control.put(message))

    def _put(self, put: Callable[[], None]) -> None:
        try:
            put()
        except Overflow:
            log.error(
                "instance %s does not read its stream (%d messages or %d MiB unread): closing its session",
                self._instance_id,
                OUTBOX_LIMIT,
                OUTBOX_BYTES // 2**20,
            )
            self.close("the executor does not read")
            self.stuck.set()

    def attempt(self, number: int) -> common_pb2.Attempt:
        """Return the wire's Attempt for a number of this scheduler's own counting."""
        epoch, number = self._names.of(number) or (self._epoch, number)
        return common_pb2.Attempt(epoch=epoch, number=number)


def _outputs_outbox() -> Outbox[executor_pb2.OutputsResponse]:
    return Outbox(OUTBOX_LIMIT, limit_bytes=OUTBOX_BYTES, size=executor_pb2.OutputsResponse.ByteSize)
