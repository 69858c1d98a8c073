"""Control's ExecutorLink over the two streams of a session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.outbox import Outbox, Overflow

log = logging.getLogger(__name__)

OUTBOX_LIMIT = 4_096
"""Messages waiting for an executor that does not read; past it the session is closed as broken."""


class StreamLink:
    def __init__(self, instance_id: str, *, epoch: int) -> None:
        self._instance_id = instance_id
        self._epoch = epoch
        self.control: Outbox[executor_pb2.ControlResponse] = Outbox(OUTBOX_LIMIT)
        self.outputs: Outbox[executor_pb2.OutputsResponse] = Outbox(OUTBOX_LIMIT)
        self.stuck = asyncio.Event()  # the executor does not read: its streams end, whatever they wait for
        self._acks: list[executor_pb2.OutputAck] = []

    def new_outputs(self) -> Outbox[executor_pb2.OutputsResponse]:
        """For an output stream that opens; an older one ends."""
        self.outputs.close("replaced by a newer output stream")
        self.outputs = Outbox(OUTBOX_LIMIT)
        return self.outputs

    def assign(self, order: AssignOrder) -> None:
        self._send(executor_pb2.ControlResponse(assign=assign_message(order)))

    def cancel(self, attempt_number: int, reason: str) -> None:
        attempt = self.attempt(attempt_number)
        self._send(executor_pb2.ControlResponse(cancel=executor_pb2.Cancel(attempt=attempt, reason=reason)))

    def drain(self, *, resume: bool) -> None:
        self._send(executor_pb2.ControlResponse(drain=executor_pb2.Drain(resume=resume)))

    def resend(self, attempt_number: int, from_index: int) -> None:
        attempt = self.attempt(attempt_number)
        resume = executor_pb2.Resume(attempt=attempt, from_index=from_index)
        self._send(executor_pb2.ControlResponse(resume=resume))

    def release_kv(self, number: int, params: bytes) -> None:
        release = executor_pb2.ReleaseKv(number=number, kv_transfer_params=params)
        self._send(executor_pb2.ControlResponse(release_kv=release))

    def want_tokenizer(self, tokenizer_hash: str) -> None:
        wanted = executor_pb2.TokenizerWanted(tokenizer_hash=tokenizer_hash)
        self._send(executor_pb2.ControlResponse(tokenizer_wanted=wanted))

    def acknowledge_heartbeat(self, number: int) -> None:
        self._send(executor_pb2.ControlResponse(heartbeat_ack=executor_pb2.HeartbeatAck(number=number)))

    def acknowledge(self, attempt_number: int, tokens: int, *, ended: bool) -> None:
        """All acknowledgements of one turn of the loop travel together."""
        if not self._acks:
            asyncio.get_running_loop().call_soon(self._flush_acks)
        self._acks.append(executor_pb2.OutputAck(attempt_number=attempt_number, tokens=tokens, ended=ended))

    def close(self, reason: str) -> None:
        self.control.close(reason)
        self.outputs.close(reason)

    def _flush_acks(self) -> None:
        acks, self._acks = self._acks, []
        self._put(lambda: self.outputs.put(executor_pb2.OutputsResponse(acks=acks)))

    def _send(self, message: executor_pb2.ControlResponse) -> None:
        self._put(lambda: self.control.put(message))

    def _put(self, put: Callable[[], None]) -> None:
        try:
            put()
        except Overflow:
            log.error("instance %s does not read its stream; closing its session", self._instance_id)
            self.close("the executor does not read")
            self.stuck.set()

    def attempt(self, number: int) -> common_pb2.Attempt:
        return common_pb2.Attempt(epoch=self._epoch, number=number)
