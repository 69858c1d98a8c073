"""Asks the scheduler for the progress of the instances' start."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import sage_client as sage
from sage_local.fleet.status import InstanceProgress

PROBE_TIMEOUT_S = 5.0


class Probe(Protocol):
    """Asks a scheduler for its instances."""

    async def instances(self) -> tuple[InstanceProgress, ...] | None:
        """Return all registered instances; None while no scheduler answers."""
        ...

    async def pair_usable(self) -> bool:
        """Return whether a prefill/decode pair can hand over."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SchedulerProbe:
    """Asks a scheduler over its AdminService."""

    def __init__(self, address: str, client: sage.AsyncClient | None = None) -> None:
        """Build the probe.  ``client``: asks with this one, which ``close`` closes, and not with one of its own."""
        self._client = client or sage.AsyncClient(address, timeout=PROBE_TIMEOUT_S)

    async def instances(self) -> tuple[InstanceProgress, ...] | None:
        """Return all registered instances; None while no scheduler answers."""
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

    async def pair_usable(self) -> bool:
        """Return whether a prefill/decode pair can hand over; False while no scheduler answers."""
        try:
            status = await self._client.get_prefill_decode()
        except (sage.TryAgainError, sage.WaitTimeoutError):
            return False
        return bool(status.pairs_by_state.get(sage.PairState.USABLE.value))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


def all_ready(instances: Collection[InstanceProgress], wanted: Collection[str]) -> bool:
    """Return whether every instance whose id is in ``wanted`` is READY."""
    ready = {each.instance_id for each in instances if each.state == "ready"}
    return ready >= set(wanted)


def failed(instances: Collection[InstanceProgress], wanted: Collection[str]) -> InstanceProgress | None:
    """Return an instance of ``wanted`` whose engine could not start; None if there is none."""
    return next((each for each in instances if each.state == "failed" and each.instance_id in wanted), None)
