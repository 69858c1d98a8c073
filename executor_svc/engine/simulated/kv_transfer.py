"""KV transfer of one simulated engine: prompts kept for other engines, and prompts fetched from them.

Fetching continues while the engine hangs, as a read by RDMA would; freeing does not.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping

from executor_svc.engine.handoff_seal import opened, sealed
from executor_svc.engine.simulated.batch import Batch
from executor_svc.engine.simulated.faults import FaultState
from executor_svc.engine.simulated.handoffs import Handoffs
from executor_svc.engine.simulated.kv import KvLease
from executor_svc.engine.simulated.pull import Fetch, KeptAt, Puller, PullFailed
from executor_svc.engine.simulated.sequence import Sequence
from executor_svc.engine.simulated.settings import SimulatedKvTransferSettings
from executor_svc.engine.simulated.side_channel import Listener, Message, SideChannel
from executor_svc.runtime.engine_port import EngineError, JsonValue
from sage_common.clock import Clock

log = logging.getLogger(__name__)


class KvTransfer:
    """KV transfer of one engine: answers other engines, and fetches from them.

    The number of tasks is bounded by the requests in the engine; each task by the time-out of a peer's answer.
    """

    def __init__(
        self,
        *,
        settings: SimulatedKvTransferSettings,
        compatibility_key: str,
        channel: SideChannel,
        clock: Clock,
        batch: Batch,
        faults: FaultState,
        on_change: Callable[[], None],
        corrupted: Callable[[Sequence], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self.engine_id = uuid.uuid4().hex
        self.pulls = 0
        self.pulls_failed = 0
        self._settings = settings
        self._key = compatibility_key
        self._channel = channel
        self._batch = batch
        self._faults = faults
        self._on_change = on_change  # called when a sequence can start or blocks were freed
        self._on_corrupted = corrupted
        self._on_defect = on_defect
        self.kept = Handoffs(kv=batch.kv, clock=clock, lease_s=settings.lease_s, on_freed=on_change)
        self._puller = Puller(
            channel=channel, clock=clock, settings=settings, faults=faults, compatibility_key=compatibility_key
        )
        self._listener: Listener | None = None
        self._done_while_hung: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Begin to answer other engines.  Raises EngineError if the port is in use."""
        settings = self._settings
        self._listener = await self._channel.listen(
            settings.side_channel_host, settings.side_channel_port, self._answer
        )
        self._start(self.kept.expire(self._faults.running), name="kv-leases")

    def close(self) -> None:
        """Stop answering and fetching."""
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()

    async def closed(self) -> None:
        """Wait until every task has ended.  Call ``close`` first."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_defect(error)

    # --- kept for others ------------------------------------------------------------------------------------

    def keep(self, sequence: Sequence) -> dict[str, JsonValue]:
        """Pin the blocks of a prompt that was just computed.  Return how to fetch them."""
        handoff_id = uuid.uuid4().hex
        blocks, sequence.lease = sequence.lease, KvLease()
        self.kept.keep(handoff_id, blocks, sequence.prompt_tokens)
        assert self._listener is not None
        kept = KeptAt(
            engine_id=self.engine_id,
            handoff_id=handoff_id,
            host=self._settings.side_channel_host,
            port=self._listener.port,
            tokens=sequence.prompt_tokens,
            cached=sequence.cached or 0,
        )
        return sealed(kept.params, sequence.request.prompt_token_ids, sequence.request.adapter)

    def _answer(self, message: Message) -> Message:
        handoff_id = str(message.get("handoff_id"))
        match message.get("op"):
            case "hello":
                return {"engine_id": self.engine_id, "compatibility_key": self._key}
            case "read":
                self.kept.read(handoff_id)
                return {}
            case "renew":
                self.kept.renew(handoff_id)
                return {}
            case "done":
                return {"released": self._done(handoff_id)}
            case other:
                return {"error": f"unknown op {other!r}"}

    def _done(self, handoff_id: str) -> bool:
        if self._faults.hung:
            self._done_while_hung.append(handoff_id)
            return handoff_id in self.kept
        return self.kept.release(handoff_id)

    def catch_up(self) -> None:
        """Release what other engines reported as done while this engine hung."""
        for handoff_id in self._done_while_hung:
            self.kept.release(handoff_id)
        self._done_while_hung.clear()

    # --- fetched from others --------------------------------------------------------------------------------

    def begin(self, sequence: Sequence, params: Mapping[str, JsonValue]) -> None:
        """Start to fetch the KV of a new sequence.  Raises EngineError for another prompt's parameters."""
        request = sequence.request
        source = KeptAt.parse(opened(params, request.prompt_token_ids, request.adapter))
        sequence.fetch = Fetch(source=source)
        sequence.fetch.task = self._start(self._fetch(sequence, sequence.fetch), name=f"kv-{source.handoff_id}")

    async def _fetch(self, sequence: Sequence, fetch: Fetch) -> None:
        try:
            sound = await self._puller.pull(fetch)
        except PullFailed as failure:
            self._failed(sequence, str(failure))
        else:
            self.pulls += 1
            if not sound:
                self._on_corrupted(sequence)
            sequence.fetch = None
            sequence.cached = fetch.source.cached
            self._batch.fetched(sequence, sound=sound)
        self._on_change()

    def _failed(self, sequence: Sequence, reason: str) -> None:
        self.pulls_failed += 1
        sequence.fetch = None
        if self._settings.load_failure_policy == "fail":
            self._batch.remove(sequence)
            sequence.fail(EngineError(f"the KV of its prompt could not be fetched: {reason}"))
            return
        sequence.fetch_failed = True
        self._batch.not_fetched(sequence)

    def abandon(self, sequence: Sequence) -> None:
        """Release the KV that an aborted sequence was to fetch, if it has not arrived."""
        fetch, sequence.fetch = sequence.fetch, None
        if fetch is None:
            return
        if fetch.task is not None:
            fetch.task.cancel()
        self._start(self._release(fetch.source), name=f"kv-release-{fetch.source.handoff_id}")

    async def _release(self, source: KeptAt) -> None:
        if not await self._puller.release(source):
            log.warning("handoff %s could not be released at engine %s", source.handoff_id, source.engine_id)

    async def release(self, params: Mapping[str, JsonValue]) -> bool:
        """Release a handoff that no request of this engine fetched.  Raises EngineError."""
        return await self._puller.release(KeptAt.parse(opened(params, None)))
