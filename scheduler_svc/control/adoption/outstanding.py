"""What one instance holds of earlier schedulers and has not been adopted or refused yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.attempts.executor_link import ExecutorLink

ASKED_AT_ONCE = 64
"""Assigns that one instance is asked for at a time: each may be as large as a message, and a queue has bounds."""

Name = tuple[int, int]
"""An attempt's epoch and number."""


@dataclass(slots=True)
class Outstanding:
    """The attempts of one instance, in the order in which it named them."""

    to_ask: deque[Name]
    asked: set[Name] = field(default_factory=set)
    answered: list[HeldRequest] = field(default_factory=list)  # until the facts of the instance's engine are known

    @classmethod
    def of(cls, names: Iterable[Name]) -> Outstanding:
        """Make what is outstanding for an instance that names these attempts."""
        return cls(deque(dict.fromkeys(names)))

    def __bool__(self) -> bool:
        return bool(self.to_ask or self.asked or self.answered)

    def ask(self, link: ExecutorLink) -> None:
        """Ask for as many Assigns as may be under way."""
        while self.to_ask and len(self.asked) + len(self.answered) < ASKED_AT_ONCE:
            name = self.to_ask.popleft()
            self.asked.add(name)
            link.fetch_assign(*name)
