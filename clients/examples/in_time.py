"""Answers within a time, with as much as there is: a deadline, what came before it, and tries when asked to.

python clients/examples/in_time.py "Once upon a time" --within 2s [--address HOST:PORT]
"""

from __future__ import annotations

import argparse
import sys
import time

import sage_client as sage

TRIES = 5


def main() -> int:
    """Print the answer, whole or not; return 1 if there is none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt")
    parser.add_argument("--within", default="2s", help='a length of time: "500ms", "2s", "1m"')
    parser.add_argument("--max-tokens", type=int, default=1_000)
    parser.add_argument("--address", default=None, help="default: SAGE_SCHEDULER_ADDRESS, else 127.0.0.1:50051")
    options = parser.parse_args()
    with sage.Client(options.address) as client:
        for left in reversed(range(TRIES)):
            try:
                print(
                    client.generate(options.prompt, max_tokens=options.max_tokens, deadline=options.within)
                    .result()
                    .text
                )
                return 0
            except sage.DeadlineExceededError as error:
                if error.partial is None:
                    print("error: nothing came in time", file=sys.stderr)
                    return 1
                print(error.partial.text)
                print(f"[cut after {len(error.partial.token_ids)} tokens]", file=sys.stderr)
                return 0
            except sage.TryAgainError as error:  # a full queue, a limit, no instance: the scheduler says when
                if not left:
                    print(f"error: {error}", file=sys.stderr)
                    return 1
                time.sleep(error.retry_after_s or 1.0)
    return 1


if __name__ == "__main__":
    sys.exit(main())
