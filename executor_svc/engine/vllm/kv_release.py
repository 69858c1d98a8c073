"""Tells other engines that the KV they keep will not be fetched."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping

from executor_svc.engine.handoff_seal import opened
from executor_svc.engine.vllm.errors import VllmErrors
from executor_svc.engine.vllm.kv_connectors.connector import KvConnector, UnusableParams
from executor_svc.engine.vllm.load import VllmLoad
from executor_svc.engine.vllm.pulls import Pulls
from executor_svc.runtime.engine_port import EngineError, JsonValue, Sampling

NOTICE_STEP_S = 1.0  # for the engine to run the step in which its connector sends the notice
HANDSHAKE_PAUSES_S = (0.2, 0.4, 0.8, 1.6, 2.4)  # between steps while two engines may be connecting; 5 s in all


class KvRelease:
    """Releases KV through vLLM: a request that would fetch the KV is aborted before it begins.

    vLLM's connector then sends a notice to the other engine, and first connects to it if it never did.
    """

    def __init__(
        self,
        *,
        connector: KvConnector,
        load: VllmLoad,
        pulls: Pulls,
        errors: VllmErrors,
        reject: Callable[[str, dict[str, JsonValue]], Awaitable[None]],
        take_step: Callable[[str], Awaitable[None]],
    ) -> None:
        """Make a releaser.

        ``reject``: has vLLM abort a request with this id and these parameters.  ``take_step``: runs one short request.
        """
        self._connector = connector
        self._load = load
        self._pulls = pulls
        self._errors = errors
        self._reject = reject
        self._take_step = take_step
        self._numbers = itertools.count(1)

    async def release(self, kv_transfer_params: Mapping[str, JsonValue]) -> bool:
        """Send the notice.  Return whether it reached the other engine, as far as vLLM reports that.

        If the last pull from that engine failed, vLLM may drop the notice without an error; then the result is False.
        Raises EngineError for parameters that make no sense, EngineDeadError.
        """
        params = opened(kv_transfer_params, None)
        try:
            self._connector.check(params)
        except UnusableParams as error:
            raise EngineError(f"the handoff {error}") from error
        peer = self._connector.peer(params)
        failed_before = self._failures()
        try:
            await self._notify(params, peer)
        except EngineError:
            raise
        except Exception as error:
            raise self._errors.translated(error, Sampling(), started=True) from error
        reached = self._failures() == failed_before
        if reached and not self._pulls.has_met(peer):
            self._pulls.note_peer(peer, True)
        return reached and self._pulls.reaches(peer)

    def _failures(self) -> int:
        return self._load.kv_pulls_failed + self._load.kv_notices_failed

    async def _notify(self, params: dict[str, JsonValue], peer: str) -> None:
        name = f"release/{next(self._numbers)}"
        with self._pulls.releasing():
            await self._reject(name, params)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NOTICE_STEP_S):
                    await self._load.step_over()
            if not self._pulls.has_met(peer):
                await self._keep_stepping(name)

    async def _keep_stepping(self, name: str) -> None:
        """Run short requests while the engines connect.

        They connect between steps, and an idle engine runs no steps by itself.
        """
        for number, pause_s in enumerate(HANDSHAKE_PAUSES_S):
            await asyncio.sleep(pause_s)
            await self._take_step(f"{name}/{number}")
