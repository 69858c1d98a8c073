"""The most that waiting requests ask of engines, to tell at once that any READY instance can serve all of them."""

from __future__ import annotations

from scheduler_svc.domain.waiting_request import WaitingRequest

_TOKENIZERS = 2  # no fleet of one model has two


class MostAsked:
    """The longest of the requests taken in, the largest token id and the tokenizers; what leaves is not forgotten."""

    __slots__ = ("largest_token_id", "tokenizers", "total_tokens")

    def __init__(self) -> None:
        self.total_tokens = 0  # prompt and max_tokens
        self.largest_token_id = 0
        self.tokenizers: set[str] = set()  # hashes, at most two; requests that name none are left out

    def take(self, waiting: WaitingRequest) -> None:
        """Take in a request that waits now."""
        request = waiting.request
        if waiting.total_tokens > self.total_tokens:
            self.total_tokens = waiting.total_tokens
        if request.largest_token_id > self.largest_token_id:
            self.largest_token_id = request.largest_token_id
        if request.tokenizer_hash and len(self.tokenizers) < _TOKENIZERS:
            self.tokenizers.add(request.tokenizer_hash)
