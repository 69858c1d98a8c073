"""One reader's position in a request's events: what it is told next, without a task and without waiting."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Outcome
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.control.requests.read_from import ReadFrom

Event = Placement | TokenSlice | Outcome


class OutputReader:
    """Gives the placements, tokens and outcome of one request, in the order of the output.

    It reads nothing before ``begin``.  What extends it implements ``wake`` and ``of_choice``.  Of several choices it
    reads choice 0, and has a reader for each of the others, which begins and closes with it.
    """

    __slots__ = ("_live", "_tail_sent", "attached", "others", "placements_seen", "position")

    def __init__(self) -> None:
        self._live: LiveRequest | None = None
        self.attached = False
        self.position = 0  # of the next output token
        self.placements_seen = 0  # those that were taken, or that the reader does not need
        self._tail_sent = False
        self.others: Sequence[OutputReader] = ()  # of the further choices, by index from 1

    def begin(self, live: LiveRequest, *, after_token: int, attached: bool, after: Sequence[ReadFrom] = ()) -> None:
        """Read a request from an output position on; ``attached``: it was accepted for somebody else before.

        ``after``: the positions of further choices; one that is not named is read from its start.
        """
        if live.choices is not None and live is live.lead:
            positions = {each.choice: each.after_token for each in after}
            self.others = [self.of_choice(index) for index in range(1, len(live.members))]
            for index, (reader, member) in enumerate(zip(self.others, live.members[1:], strict=True), start=1):
                reader.begin(member, after_token=positions.get(index, 0), attached=attached)
        self._live = live
        self.attached = attached
        self.position = after_token
        self.placements_seen = _placements_before(live, after_token)
        live.was_read = True
        live.readers[self] = None

    @property
    def live(self) -> LiveRequest:
        """The request that is read; there is none before ``begin``, and none any more after ``release``."""
        assert self._live is not None
        return self._live

    @property
    def released(self) -> bool:
        """Whether no request is read: it was let go, or has not begun."""
        return self._live is None

    def wake(self) -> None:
        """Note that there is something new.  Called once per message of output: the hot path."""
        raise NotImplementedError

    def of_choice(self, index: int) -> OutputReader:
        """Return a new reader of another choice of the request."""
        raise NotImplementedError

    def poll(self) -> Event | None:
        """Take the next event; None if there is nothing new.  The outcome is the last and is given again."""
        placement = self.next_placement()
        if placement is not None:
            self.placements_seen += 1
            return placement
        live = self.live
        if self.position < len(live.published):
            return self.take_tokens()
        outcome = live.published_outcome
        if outcome is None:
            return None
        return self.take_tail() or outcome

    def next_placement(self) -> Placement | None:
        """Return the placement that comes before any further token; None where no token waits for one.

        It stays the next one until ``poll`` or ``pass_placement`` takes it.
        """
        placements = self.live.placements
        if self.placements_seen < len(placements):
            placement = placements[self.placements_seen]
            if placement.from_token <= self.position:
                return placement
        return None

    def pass_placement(self) -> None:
        """Take the placement that ``next_placement`` gives."""
        self.placements_seen += 1

    def take_tokens(self, most: int | None = None) -> TokenSlice:
        """Take the tokens of one attempt, at most ``most``; more is published than ``position``."""
        tokens = self.live.published.read(self.position, most)
        self.position += len(tokens.token_ids)
        return tokens

    def take_tail(self) -> TokenSlice | None:
        """Take, once, the text that was held back until the end; None if there is none.  The request has ended."""
        live = self.live
        output = live.published
        if not output.tail or self._tail_sent:
            return None
        self._tail_sent = True
        last = live.placements[-1].decision.attempt_number if live.placements else 0
        return TokenSlice(last, len(output), (), output.text_length - len(output.tail), output.tail, None)

    def close(self) -> None:
        """Stop reading.  ``Intake.leave`` decides whether the request goes on."""
        self.live.readers.pop(self, None)
        for each in self.others:
            each.close()

    def release(self) -> None:
        """Let the request go, so that a stream that cannot end yet does not keep it in memory."""
        self._live = None
        for each in self.others:
            each.release()


def _placements_before(live: LiveRequest, position: int) -> int:
    """Count the placements that a reader at ``position`` needs no more.

    The one whose attempt made the next token is the first that it gets; those after it come before their tokens.
    """
    begun = sum(placement.from_token <= position for placement in live.placements)
    return max(0, begun - 1)
