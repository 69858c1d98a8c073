"""The models of a fleet, as its instances serve them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sage_client._enums import InstanceRole, InstanceState
from sage_client._fleet_view import FleetView, Instance
from sage_client._plain import Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Model(Plain):
    """A model that instances of the fleet serve."""

    name: str  # what requests ask for
    embeds: bool  # whether it takes ``embed``, rather than ``generate``
    max_model_len: int  # tokens of prompt and output that some instance takes
    adapters: tuple[str, ...]  # LoRA adapters that some instance has, by name
    instances: int
    ready: int  # instances that take requests now
    waiting: int  # requests in its queue
    revisions: tuple[str, ...]  # of the weights; more than one while a fleet is updated


def models_of(view: FleetView) -> tuple[Model, ...]:
    """Return the models of a fleet, by name."""
    by_name: dict[str, list[Instance]] = {}
    for each in view.instances:
        by_name.setdefault(each.model, []).append(each)
    waiting = {queue.model: queue.waiting for queue in view.queues}
    return tuple(_model(name, by_name[name], waiting.get(name, 0)) for name in sorted(by_name))


def _model(name: str, instances: list[Instance], waiting: int) -> Model:
    return Model(
        name=name,
        embeds=all(each.role is InstanceRole.EMBEDDING for each in instances),
        max_model_len=max(each.max_model_len for each in instances),
        adapters=_names(adapter for each in instances for adapter in each.adapters),
        instances=len(instances),
        ready=sum(each.state is InstanceState.READY for each in instances),
        waiting=waiting,
        revisions=_names(each.revision for each in instances if each.revision),
    )


def _names(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(found)))
