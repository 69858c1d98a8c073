"""How far the instances have come, as the scheduler says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import sage_client as sage
from fleet.status import InstanceProgress

PROBE_TIMEOUT_S = 5.0


class Probe(Protocol):
    """Asks a scheduler for its instances."""

    async def instances(self) -> tuple[InstanceProgress, ...] | None:
        """None while no scheduler answers."""
        ...

    async def close(self) -> None: ...


class SchedulerProbe:
    """Asks over AdminService."""

    def __init__(self, address: str) -> None:
        self._client = sage.AsyncClient(address, timeout=PROBE_TIMEOUT_S)

    async def instances(self) -> tuple[InstanceProgress, ...] | None:
        try:
            view = await self._client.list_instances()
        except (sage.TryAgainError, sage.WaitTimeoutError):
            return None
        return tuple(
            InstanceProgress(
                instance_id=each.instance_id,
                state=each.state.value,
                progress=each.progress,
                message=each.state_reason,
            )
            for each in view.instances
        )

    async def close(self) -> None:
        await self._client.close()


def all_ready(instances: Collection[InstanceProgress], wanted: Collection[str]) -> bool:
    ready = {each.instance_id for each in instances if each.state == "ready"}
    return ready >= set(wanted)


def failed(instances: Collection[InstanceProgress], wanted: Collection[str]) -> InstanceProgress | None:
    """A wanted instance whose engine could not start."""
    return next((each for each in instances if each.state == "failed" and each.instance_id in wanted), None)
