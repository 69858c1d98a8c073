"""The most room that any instance has, which tells quickly that a request finds none."""

from __future__ import annotations

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.figures import Column, highest

_FULL = -1.0


class MostRoom:
    """The longest prompt, and the most KV tokens beside a prompt, that any of some instances takes now.

    It holds until something is reserved or freed on one of them.
    """

    __slots__ = ("_accounts", "_most")

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._most: dict[str, tuple[float, float]] = {}  # longest prompt and most KV tokens, by the limit of prompts

    def lacks(self, limit: str, prompt_tokens: int, tokens: int) -> bool:
        """Whether no instance has capacity for a request; if it is False, one may have.

        ``limit``: the figure that limits the request's prompt (``filters.prompt_limit``).  ``tokens``: KV tokens.
        """
        most = self._most.get(limit)
        if most is None:
            most = self._most[limit] = self._look(limit)
        longest, most_tokens = most
        return prompt_tokens > longest or tokens > most_tokens

    def _look(self, limit: str) -> tuple[float, float]:
        if not self._accounts:
            return _FULL, _FULL
        each = self._accounts.figures
        limits: Column = getattr(each, limit)
        takes = (limits >= 0.0).nonzero()[0]
        if not len(takes):
            return _FULL, _FULL
        return highest(limits), highest(each.free_tokens[takes])
