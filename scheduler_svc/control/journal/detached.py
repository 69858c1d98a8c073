"""The journal's port for detached work: requests, their output so far, their ends.

Times are seconds since 1970 (wall clock).  What is returned from a write is on disk.  Every call raises
``JournalUnavailable`` if the journal cannot be written or read now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.request import RequestKey, RequestState


@dataclass(frozen=True, kw_only=True, slots=True)
class DetachedRequest:
    """A detached request as it was accepted, with all its choices."""

    key: RequestKey  # of choice 0
    digest: bytes  # of its content
    model: str
    content: bytes  # the whole request, encoded
    about: bytes  # what a list shows of it, encoded; small
    accepted_at: float
    deadline_at: float | None  # None: it has none
    keep_s: float  # how long its result is kept after its end

    @property
    def size_bytes(self) -> int:
        """What it counts in its tenant's bytes."""
        return REQUEST_BYTES + len(self.content) + len(self.about)


REQUEST_BYTES = 512
"""What a request counts in bytes besides its content and output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPiece:
    """Consecutive output tokens of one request."""

    first_index: int  # output position of token_ids[0]
    token_ids: Sequence[int]
    text_lengths: Sequence[int]  # Unicode code points of text that became certain with each token
    text: str
    logprobs: Sequence[bytes] | None  # an encoded message per token, b"" without one; None if not requested

    @property
    def size_bytes(self) -> int:
        """What it counts in its tenant's bytes."""
        logprobs = sum(4 + len(each) for each in self.logprobs or ())
        return 8 * len(self.token_ids) + 4 * len(self.text) + logprobs


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFacts:
    """What is known of a request's output besides the tokens."""

    epoch: int = 0  # of the attempt that made the last token; 0: there is none
    attempt_number: int = 0  # of that attempt, in that epoch
    attempts: int = 0  # started so far
    cost: float = 0.0  # of ended attempts
    first_token_at: float | None = None
    identity: ModelIdentity | None = None  # of the model that gave the first token


@dataclass(frozen=True, kw_only=True, slots=True)
class DetachedEnd:
    """How one choice of a detached request ended."""

    state: RequestState  # of choice 0: of the request with all its choices
    outcome: bytes  # encoded
    tail: str  # text that was held back until the end
    ended_at: float
    keep_until: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What is new of one choice of a request: output, its end, or both.

    The ends of all choices are in one write, that of choice 0 among them.
    """

    key: RequestKey
    facts: OutputFacts
    piece: OutputPiece | None  # None: no new output
    end: DetachedEnd | None = None

    @property
    def size_bytes(self) -> int:
        """What it counts in its tenant's bytes."""
        size = self.piece.size_bytes if self.piece is not None else 0
        return size + (len(self.end.outcome) + 4 * len(self.end.tail) if self.end is not None else 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetachedSummary:
    """A detached request without content and output."""

    key: RequestKey
    model: str
    accepted_at: float
    output_tokens: int  # of all choices, in a page
    size_bytes: int  # of everything that is kept of it
    state: RequestState | None = None  # None: it has not ended
    ended_at: float | None = None
    keep_until: float | None = None


class ListedRequest(NamedTuple):
    """A request as a page shows it."""

    summary: DetachedSummary
    about: bytes  # DetachedRequest.about
    outcome: bytes  # encoded; empty: it has not ended, or has finished


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredChoice:
    """Everything that is kept of the output of one choice."""

    facts: OutputFacts = field(default_factory=OutputFacts)
    pieces: Sequence[OutputPiece] = ()  # in order, without a gap
    end: DetachedEnd | None = None

    @property
    def tokens(self) -> int:
        """How many output tokens there are."""
        return sum(len(piece.token_ids) for piece in self.pieces)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRequest:
    """Everything that is kept of a detached request."""

    request: DetachedRequest
    facts: OutputFacts  # of choice 0, as the pieces and the end
    pieces: Sequence[OutputPiece]  # in order, without a gap
    end: DetachedEnd | None
    others: Mapping[int, StoredChoice] = field(default_factory=dict)  # further choices of which there is something

    def choice(self, index: int) -> StoredChoice:
        """Return what is kept of one choice."""
        if index:
            return self.others.get(index, StoredChoice())
        return StoredChoice(facts=self.facts, pieces=self.pieces, end=self.end)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Which requests of a tenant are wanted; the latest come first."""

    tenant: str
    limit: int
    model: str = ""  # empty: all
    states: Collection[RequestState] = ()  # empty: all; one that has not ended counts as QUEUED and as RUNNING
    before: tuple[float, str] | None = None  # accepted_at and id of the last request of the page before


class DetachedStore(Protocol):
    """Keeps detached work.  Writes take effect in the order of their calls."""

    async def add(self, request: DetachedRequest, whole: Sequence[Checkpoint] = ()) -> None:
        """Write down a request that is accepted; ``whole``: of one that has ended, its choices' output and ends."""
        ...

    async def remove(self, keys: Sequence[RequestKey]) -> None:
        """Delete requests with their output; ``keys``: of choice 0."""
        ...

    async def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Write down what is new of some requests, all or nothing; of one that is not known or has an end, nothing."""
        ...

    async def summaries(self) -> Sequence[DetachedSummary]:
        """Return all requests, each with the number of choice 0's output tokens alone."""
        ...

    async def unfinished(self) -> Sequence[StoredRequest]:
        """Return everything that is kept of the requests that have not ended, the oldest first."""
        ...

    async def find(self, key: RequestKey) -> StoredRequest | None:
        """Return one request; None if it is not known."""
        ...

    async def page(self, page: Page) -> Sequence[ListedRequest]:
        """Return some requests of a tenant, the latest first."""
        ...
