"""The resources that Ray reserves for an executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sage_fleet.specification.group import GroupSection

Strategy = Literal["STRICT_PACK", "PACK"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """A placement group of Ray, and what the executor's actor takes of its first bundle."""

    bundles: tuple[dict[str, float], ...]  # resources by Ray's names, CPU and GPU, of each part
    strategy: Strategy
    actor_cpus: int
    actor_gpus: int  # 0 where workers of the engine, actors too, take the GPUs

    @property
    def spans_nodes(self) -> bool:
        """Whether the engine may run on several nodes, by vLLM's Ray backend."""
        return self.strategy == "PACK"


def reservation(group: GroupSection, gpus_per_node: int) -> Reservation:
    """Return what one executor of a group needs.

    An engine that a node can hold is one bundle on one node.  A larger one has a bundle for each GPU, as vLLM's Ray
    backend wants them, on as few nodes as possible; the executor itself needs CPU beside the first GPU.
    """
    if group.gpus <= gpus_per_node:
        whole = _resources(group.cpus, group.gpus)
        return Reservation(bundles=(whole,), strategy="STRICT_PACK", actor_cpus=group.cpus, actor_gpus=group.gpus)
    bundles = (_resources(group.cpus, 1), *(_resources(0, 1) for _ in range(group.gpus - 1)))
    return Reservation(bundles=bundles, strategy="PACK", actor_cpus=group.cpus, actor_gpus=0)


def _resources(cpus: int, gpus: int) -> dict[str, float]:
    amounts = {"CPU": float(cpus), "GPU": float(gpus)}
    return {name: amount for name, amount in amounts.items() if amount}
