"""Ends an executor's actor that has left, and gives its reservation back."""

from __future__ import annotations

import contextlib
from typing import Any

import ray

from sage_fleet.ray_place.actor_name import NAMESPACE


def end_actor(name: str) -> None:
    """End the actor of this name for good, and remove its placement group; what does not exist is passed over.

    The actor goes first: one that Ray ends because its group is removed would wait for ever to be started again.
    """
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
    try:
        group = ray.util.get_placement_group(name)
    except ValueError:
        return
    ray.util.remove_placement_group(group)


class ActorRemover:
    """An actor without resources that ends another one: none can remove its own placement group and then itself."""

    def remove(self, name: str) -> None:
        """End the actor of this name and its reservation, then this actor."""
        end_actor(name)
        leave: Any = ray.actor.exit_actor
        leave()
