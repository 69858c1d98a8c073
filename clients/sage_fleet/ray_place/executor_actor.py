"""The actor of one executor: runs ``executor_svc`` as a child process that lives and ends with it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import ray

from sage_fleet.ray_place.actor_name import NAMESPACE
from sage_fleet.ray_place.actor_remover import ActorRemover
from sage_fleet.ray_place.executor_start import ExecutorStart
from sage_fleet.ray_place.node_labels import node_settings
from sage_fleet.ray_place.worker_log import WorkerLog
from sage_local.fleet.command_lines import STOP_MARGIN_S, ProcessSpec, own_environment
from sage_local.fleet.reaper_link import ReaperLink
from sage_local.fleet.supervised_process import SupervisedProcess

log = logging.getLogger(__name__)

REAPER_GRACE_S = 0.5  # from the actor's death until what is left of its executor is killed
STEADY_S = 60.0  # an executor that ran for less is started again after a pause only
PAUSE_S = 5.0  # so that one that cannot start does not keep its node busy


class ExecutorActor:
    """Starts its executor when it is created.  Ray starts the actor again, on any node, when it dies.

    The actor dies when its executor ends by itself.  An actor that is killed leaves no process of its executor: the
    kernel and a reaper process end them.
    """

    def __init__(self, start: ExecutorStart) -> None:
        self._reaper = ReaperLink(REAPER_GRACE_S)
        self._process = SupervisedProcess(_process(start), WorkerLog(), self._reaper)
        self._name = start.actor
        self._leaving: asyncio.Task[None] | None = None
        self._kept = asyncio.get_running_loop().create_task(self._keep(), name=f"keep-{start.instance_id}")

    async def drains(self) -> bool:
        """Return whether the executor drains."""
        return self._leaving is not None

    async def leave(self) -> None:
        """Begin to drain the executor; when it has ended, the actor and its placement group are removed."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave(), name="leave")

    async def _keep(self) -> None:
        """Run the executor; end this process when it has ended by itself, so that Ray starts the actor again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._process.start()
            status = await self._process.ended()
            if self._leaving is not None:
                return
            log.error("the executor ended with status %d; Ray starts it again", status)
            if loop.time() - began < STEADY_S:
                await asyncio.sleep(PAUSE_S)
        except Exception:
            log.exception("the executor could not be started")
            await asyncio.sleep(PAUSE_S)
        if self._leaving is None:
            os._exit(1)

    async def _leave(self) -> None:
        await self._process.stop()
        self._reaper.close()
        options = {"name": f"{self._name}/remover", "namespace": NAMESPACE, "lifetime": "detached", "num_cpus": 0}
        remover: Any = ray.remote(ActorRemover).options(**options).remote()
        await remover.remove.remote(self._name)  # which ends this process


def _cluster() -> dict[str, str]:
    """Return what leads the executor's process, which may start workers of its engine on Ray, to this cluster."""
    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


def _process(start: ExecutorStart) -> ProcessSpec:
    labels = {name: str(value) for name, value in ray.get_runtime_context().get_node_labels().items()}
    return ProcessSpec(
        name=start.instance_id,
        command=(sys.executable, "-m", "executor_svc"),
        environment=own_environment() | _cluster() | dict(start.environment) | node_settings(labels),
        stop_timeout_s=start.drain_timeout_s + STOP_MARGIN_S,
    )
