"""Leaves prompts with the scheduler, and prints the answers that are there.  Run it again later for the others.

    python clients/examples/overnight.py NAME prompts.txt [--address HOST:PORT] > answers.jsonl

Reads one prompt per line.  NAME and the line's number make a request's id, so running it again asks nothing twice.
Prints one JSON object per line that has ended; the exit status is 3 while there are others.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import sage_client as sage

KEPT = "72h"  # how long an answer is kept after its end
NOT_ALL = 3  # exit status


def main() -> int:
    """Submit all prompts, print what has ended; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--address", default=sage.DEFAULT_ADDRESS)
    parser.add_argument("--max-tokens", type=int, default=64)
    options = parser.parse_args()
    waiting = 0

    with sage.Client(options.address) as client:
        for number, prompt in enumerate(options.prompts.read_text().splitlines(), 1):
            job = client.submit(
                prompt,
                request_id=f"{options.name}-{number}",
                max_tokens=options.max_tokens,
                priority="background",
                keep_result=KEPT,
            )
            found = job.get()
            if found.request.ended_at is None:
                waiting += 1
            elif found.result is not None and found.result.finished is not None:
                print(json.dumps({"line": number, "text": found.result.text}))
            else:
                print(json.dumps({"line": number, "error": found.request.error}))
    print(f"{waiting} have not ended", file=sys.stderr)
    return NOT_ALL if waiting else 0


if __name__ == "__main__":
    sys.exit(main())
