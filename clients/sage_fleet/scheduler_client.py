"""Asks a fleet's scheduler for its instances."""

from __future__ import annotations

import sage_client as sage
from sage_fleet.errors import FleetError
from sage_fleet.specification.fleet import Fleet

CALL_TIMEOUT_S = 5.0


def client_of(fleet: Fleet, addresses: str) -> sage.AsyncClient:
    """Return a client of the fleet's scheduler, as an operator.  Raises FleetError if its token cannot be read."""
    tls, access = fleet.scheduler.tls, fleet.scheduler.access
    token = None
    if access is not None:
        try:
            token = access.operator_token_file.read_text().strip()
        except OSError as error:
            raise FleetError(
                f"scheduler.access.operator_token_file: cannot read {access.operator_token_file}: {error.strerror}"
            ) from error
    return sage.AsyncClient(
        addresses,
        tls_ca=tls.ca if tls is not None else None,
        token=token,
        insecure=tls is None,
        timeout=CALL_TIMEOUT_S,
    )


async def instances_of(client: sage.AsyncClient) -> dict[str, sage.Instance] | None:
    """Return all instances by their ids; None while no scheduler answers."""
    try:
        view = await client.list_instances()
    except (sage.TryAgainError, sage.WaitTimeoutError):
        return None
    return {each.instance_id: each for each in view.instances}


def is_ready(instance: sage.Instance | None) -> bool:
    """Return whether an instance takes requests, or would if it were woken or an operator had not cordoned it."""
    states = sage.InstanceState
    ready = (states.READY, states.DRAINED, states.DRAINING, states.SLEEPING)
    return instance is not None and instance.state in ready


def is_gone(instance: sage.Instance) -> bool:
    """Return whether the scheduler has lost an instance's executor, or its engine failed."""
    return instance.state in (sage.InstanceState.FAILED, sage.InstanceState.LOST)


async def desired_of(client: sage.AsyncClient) -> tuple[sage.DesiredInstances, ...]:
    """Return how many instances there are to be, by model and role.  Raises SageError."""
    return (await client.desired_instances()).desired
