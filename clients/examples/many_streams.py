"""Runs many requests at once with a sink each: methods that are called, no task and no queue per request.

python clients/examples/many_streams.py 200 [--address HOST:PORT[,HOST:PORT...]]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import sage_client as sage


class Counter:
    """Counts what comes, and says when nothing more does.  Implements ``sage_client.Sink``."""

    def __init__(self) -> None:
        self.tokens_seen = 0
        self.error: sage.SageError | None = None
        self.over = asyncio.Event()

    def accepted(self, event: sage.Accepted) -> None:
        """Note nothing: the request was accepted."""

    def scheduled(self, event: sage.Scheduled) -> None:
        """Note nothing: the request was placed on an instance."""

    def tokens(
        self,
        choice: int,
        first_index: int,
        token_ids: Sequence[int],
        text_offset: int,
        text: str,
        logprobs: Sequence[Sequence[sage.TokenLogprob]],
    ) -> None:
        """Count tokens."""
        self.tokens_seen += len(token_ids)

    def finished(self, event: sage.Finished) -> None:
        """Take the end."""
        self.over.set()

    def failed(self, error: sage.SageError) -> None:
        """Take the end with an error."""
        self.error = error
        self.over.set()


async def main() -> int:
    """Run the requests; print how many tokens came, and return 1 if one failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("requests", type=int)
    parser.add_argument("--address", default=None, help="default: SAGE_SCHEDULER_ADDRESS, else 127.0.0.1:50051")
    options = parser.parse_args()
    sinks = [Counter() for _ in range(options.requests)]
    async with sage.AsyncClient(options.address) as client:
        for number, sink in enumerate(sinks):
            client.start(f"Request {number}:", sink=sink, max_tokens=16, priority=sage.Priority.LOW)
        await asyncio.gather(*(sink.over.wait() for sink in sinks))
    failures = [sink.error for sink in sinks if sink.error is not None]
    print(f"{sum(sink.tokens_seen for sink in sinks)} tokens in {len(sinks)} requests, {len(failures)} failed")
    for error in failures[:3]:
        print(f"error: {error}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
