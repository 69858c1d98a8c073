"""Bounds the memory that prompts take: those that arrive, wait and run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler_svc.control.requests.submission import ChatPrompt, Submission, TextPrompt, TokenPrompt
from scheduler_svc.domain.errors import LimitReached
from scheduler_svc.domain.media import Media
from scheduler_svc.domain.request import Request, RequestKey

ID_BYTES = 8  # of a token id: in the prompt, and in the encoded message, which gRPC keeps while the call lasts
HASH_BYTES = 44  # of the hash of one block of a prompt
OBJECT_BYTES = 64  # of a string or a number in a list, about
REQUEST_BYTES = 4_096  # of a request whose prompt and sampling are short, about
MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptMemoryLimits:
    """Bounds in bytes."""

    total: int = 2 * 1024 * MIB
    tenant: int = 1024 * MIB  # of one tenant; the others find place beside it


class PromptMemory:
    """Counts the bytes of each request that is not over, in all and by tenant."""

    def __init__(self, limits: PromptMemoryLimits) -> None:
        self._limits = limits
        self._sizes: dict[RequestKey, int] = {}
        self._tenants: Counter[str] = Counter()
        self.total = 0

    def take(self, key: RequestKey, size: int) -> None:
        """Count a request with ``size`` bytes, instead of what it was counted with before.

        Raises LimitReached if it does not fit; it is then counted as before.
        """
        more = size - self._sizes.get(key, 0)
        self._check(self.total, more, size, self._limits.total, "the prompts here")
        self._check(self._tenants[key.tenant], more, size, self._limits.tenant, "this tenant's prompts here")
        self._change(key, more)

    def give_back(self, key: RequestKey) -> None:
        """Count a request no more; nothing happens if it is not counted."""
        self._change(key, -self._sizes.get(key, 0))
        self._sizes.pop(key, None)

    def _change(self, key: RequestKey, more: int) -> None:
        self._sizes[key] = self._sizes.get(key, 0) + more
        self.total += more
        self._tenants[key.tenant] += more
        if not self._tenants[key.tenant]:
            del self._tenants[key.tenant]  # callers name tenants as they like

    @staticmethod
    def _check(taken: int, more: int, size: int, limit: int, what: str) -> None:
        if more > 0 and taken + more > limit:
            text = f"{what} take {_mib(taken)} of {_mib(limit)}; this request of {_mib(size)} does not fit"
            raise LimitReached("bytes of prompts", limit, text)


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def size_of_submission(submission: Submission) -> int:
    """Return about how many bytes a submission takes."""
    prompt, size = submission.prompt, REQUEST_BYTES + size_of_media(submission.media)
    if isinstance(prompt, TextPrompt):
        size += len(prompt.text)
    elif isinstance(prompt, TokenPrompt):
        size += ID_BYTES * len(prompt.token_ids)
    elif isinstance(prompt, ChatPrompt):
        size += sum(OBJECT_BYTES + len(turn.text) for turn in prompt.conversation.turns)
    return size


def size_of_request(request: Request) -> int:
    """Return about how many bytes a request takes."""
    sampling = request.sampling
    numbers = len(sampling.allowed_token_ids) + len(sampling.stop_token_ids) + len(sampling.logit_bias)
    texts = sum(map(len, (*sampling.stop, *sampling.bad_words)))
    hashes = HASH_BYTES * len(request.prefix_hashes)
    options = sum(OBJECT_BYTES + len(name) + len(value) for name, value in sampling.engine_options.items())
    wanted = sampling.structured_output
    constraint = len(wanted.value) + len(wanted.reasoning_arguments) if wanted is not None else 0
    lists = OBJECT_BYTES * numbers + texts + options + constraint
    ids = ID_BYTES * len(request.prompt_token_ids)
    return REQUEST_BYTES + ids + hashes + lists + size_of_media(request.media)


def size_of_media(media: Sequence[Media]) -> int:
    """Return how many bytes images and audio take: here, and in the encoded message."""
    return 2 * sum(len(each.data) for each in media)
