"""A Ray cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from sage_fleet.errors import FleetError
from sage_fleet.ray_place.actor_name import NAMESPACE, ActorName
from sage_fleet.ray_place.blocking_calls import BlockingCalls
from sage_fleet.ray_place.bundles import Reservation
from sage_fleet.ray_place.cluster import ActorRecord, ActorState
from sage_fleet.ray_place.executor_start import ExecutorStart

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

CONNECT_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 20.0  # of a call to the cluster's control service
ASK_TIMEOUT_S = 5.0  # of a call to an actor
CLOSE_TIMEOUT_S = 5.0  # to end the connection


def import_ray() -> Any:
    """Return the package ray.  Raises FleetError, which names the extra, where it is missing."""
    try:
        import ray
    except ModuleNotFoundError as absent:
        raise FleetError("ray is not installed: pip install 'sage-control-plane[ray]'") from absent
    return ray


class RayCluster:
    """Connects this process to a Ray cluster at the first call."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connected: Any = None  # the package ray, once this process is connected
        self._connecting = asyncio.Lock()
        self._calls = BlockingCalls()

    async def actors(self, fleet: str) -> tuple[ActorRecord, ...]:
        """Return the actors of a fleet that were created and not removed, by group and number."""
        ray = await self._ray()
        return await self._call(lambda: _records(ray, fleet))

    async def has_room(self, reserved: Reservation) -> bool:
        """Return whether the free resources, of one node or of all, hold the reservation."""
        ray = await self._ray()
        return await self._call(lambda: _has_room(ray, reserved))

    async def create(self, name: ActorName, start: ExecutorStart, reserved: Reservation, *, max_restarts: int) -> None:
        """Create a placement group and in its first bundle the actor, both detached from this process."""
        ray = await self._ray()
        await self._call(lambda: _create(ray, name, start, reserved, max_restarts))

    async def draining(self, names: Collection[ActorName]) -> frozenset[ActorName]:
        """Ask all of these actors at once whether they drain; one that does not answer does not."""
        answers = await asyncio.gather(*(self._ask(name, "drains") for name in names))
        return frozenset(name for name, drains in zip(names, answers, strict=True) if drains)

    async def leave(self, name: ActorName) -> bool:
        """Have an actor drain its executor and remove itself; False if it does not answer."""
        return await self._ask(name, "leave") is not None

    async def remove(self, name: ActorName) -> None:
        """End an actor, its executor and their reservation at once, if they exist."""
        await self._ray()
        from sage_fleet.ray_place.actor_remover import end_actor

        await self._call(lambda: end_actor(str(name)))

    async def close(self) -> None:
        """Close the connection, if Ray does so in a bounded time."""
        ray, self._connected = self._connected, None
        if ray is not None:
            try:
                await self._call(ray.shutdown, CLOSE_TIMEOUT_S)
            except FleetError as error:
                log.warning("the connection is left as it is: %s", error)

    async def _ray(self) -> Any:
        async with self._connecting:
            if self._connected is None:
                ray = import_ray()
                await self._call(lambda: _connect(ray, self._address), CONNECT_TIMEOUT_S)
                self._connected = ray
        return self._connected

    async def _call(self, call: Callable[[], Answer], timeout_s: float | None = None) -> Answer:
        """Run a blocking call of Ray's in a thread; ``timeout_s`` is CALL_TIMEOUT_S unless given.

        Raises FleetError if it fails or takes too long.
        """
        timeout_s = CALL_TIMEOUT_S if timeout_s is None else timeout_s
        try:
            return await self._calls.run(call, timeout_s)
        except FleetError:
            raise
        except TimeoutError as error:
            raise FleetError(f"the Ray cluster at {self._address} did not answer in {timeout_s:g} s") from error
        except Exception as error:
            raise FleetError(f"the Ray cluster at {self._address}: {_in_one_line(error)}") from error

    async def _ask(self, name: ActorName, method: str) -> bool | None:
        """Call a method of an actor.  None if there is none of this name, or it does not answer."""
        ray = await self._ray()
        try:
            actor = await self._call(lambda: ray.get_actor(str(name), namespace=NAMESPACE))
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return bool(await getattr(actor, method).remote())
        except (FleetError, TimeoutError, ray.exceptions.RayError):
            return None


def _connect(ray: Any, address: str) -> None:
    """Connect this process, which has one connection at most: one that was given up and came all the same is ended."""
    if ray.is_initialized():
        ray.shutdown()
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")


def _records(ray: Any, fleet: str) -> tuple[ActorRecord, ...]:
    """Join the actors with their placement groups, by their common names."""
    nodes = {node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})" for node in ray.nodes()}
    # The public list of actors (ray.util.state) asks the dashboard, which a cluster may run without.
    actors = {each["Name"]: each for each in ray._private.state.actors().values() if each["State"] != "DEAD"}
    groups = ray.util.placement_group_table().values()
    reserved = {each["name"]: each["state"] for each in groups if each["state"] != "REMOVED"}
    records = []
    for text in {*actors, *reserved}:
        name = ActorName.parse(text)
        if name is None or name.fleet != fleet:
            continue
        actor = actors.get(text)
        records.append(
            ActorRecord(
                name=name,
                state=_state(reserved.get(text), actor),
                node=nodes.get(actor["Address"]["NodeID"], "") if actor else "",
                restarts=actor["NumRestarts"] if actor else 0,
            )
        )
    return tuple(sorted(records, key=lambda record: record.name))


def _state(reserved: str | None, actor: dict[str, Any] | None) -> ActorState:
    if actor is None:
        return "dead"
    if reserved is None:
        return "ending"
    if reserved != "CREATED":
        return "unplaced"
    return "alive" if actor["State"] == "ALIVE" else "starting"


def _has_room(ray: Any, reserved: Reservation) -> bool:
    free = ray._private.state.available_resources_per_node().values()
    if reserved.strategy == "STRICT_PACK":
        return any(_holds(node, reserved.bundles[0]) for node in free)
    names = {name for bundle in reserved.bundles for name in bundle}
    needed = {name: sum(bundle.get(name, 0.0) for bundle in reserved.bundles) for name in names}
    return _holds({name: sum(node.get(name, 0.0) for node in free) for name in names}, needed)


def _holds(free: dict[str, float], needed: dict[str, float]) -> bool:
    return all(free.get(name, 0.0) >= amount for name, amount in needed.items())


def _create(ray: Any, name: ActorName, start: ExecutorStart, reserved: Reservation, max_restarts: int) -> None:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from sage_fleet.ray_place.executor_actor import ExecutorActor

    group = ray.util.placement_group(
        [dict(bundle) for bundle in reserved.bundles], strategy=reserved.strategy, name=str(name), lifetime="detached"
    )
    ray.remote(ExecutorActor).options(
        name=str(name),
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=max_restarts,
        num_cpus=reserved.actor_cpus,
        num_gpus=reserved.actor_gpus,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
    ).remote(start)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
