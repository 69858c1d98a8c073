"""Which requests may be at instances that have not come back to the scheduler after an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.domain.request import RequestKey


class MissingInstances(dict[str, EarlierInstance]):
    """The instances by id.  Answers for one request in constant time, however many are missing."""

    def __init__(self, instances: Mapping[str, EarlierInstance]) -> None:
        super().__init__(instances)
        self._untold: Counter[str] = Counter()  # by model: instances of which nobody knows what they hold
        self._told: Counter[RequestKey] = Counter()  # by request: instances that may hold it
        for each in instances.values():
            self._count(each, 1)

    def found(self, instance_id: str) -> None:
        """Note that an instance came back; does nothing for one that is not missing."""
        instance = self.pop(instance_id, None)
        if instance is not None:
            self._count(instance, -1)

    def serve(self, model: str) -> bool:
        """Return whether one of them may serve a model; an empty name stands for any."""
        return any(not model or not each.model or each.model == model for each in self.values())

    def may_hold(self, key: RequestKey, model: str) -> bool:
        """Return whether one of them may hold a request of this id for this model; an empty name: for any model."""
        if self._told[key]:
            return True
        return self._untold.total() > 0 if not model else self._untold[model] + self._untold[""] > 0

    def _count(self, instance: EarlierInstance, by: int) -> None:
        if instance.holds is None:
            self._untold[instance.model] += by
        for key in instance.holds or ():
            self._told[key] += by
