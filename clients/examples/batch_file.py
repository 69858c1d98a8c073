"""Runs a file of prompts as one batch at the scheduler, shows how far it is, and prints the answers in order.

    python clients/examples/batch_file.py NAME prompts.txt --model MODEL [--address HOST:PORT] > answers.jsonl

Reads one prompt per line.  NAME is the batch's id: after an interruption, running it again goes on waiting for the same
batch, which needs no client meanwhile.  The exit status is 1 if a prompt was not answered.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import sage_client as sage


def line(number: int, prompt: str, options: argparse.Namespace) -> bytes:
    """Return a line of the batch, in OpenAI's format."""
    body = {
        "model": options.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": options.max_tokens,
    }
    request = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(request).encode() + b"\n"


def show(batch: sage.Batch) -> None:
    """Print how far the batch is, in one line that is overwritten."""
    counts = batch.counts
    print(f"\r{batch.state.value}: {counts.ended} of {counts.total} lines", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Run the batch; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--address", default=sage.DEFAULT_ADDRESS)
    parser.add_argument("--max-tokens", type=int, default=64)
    options = parser.parse_args()
    prompts = options.prompts.read_text().splitlines()

    with sage.Client(options.address) as client:
        lines = [line(number, prompt, options) for number, prompt in enumerate(prompts, 1)]
        answers = client.run_batch(lines, batch_id=options.name, on_progress=show).by_custom_id()
    print(file=sys.stderr)

    for number in range(1, len(prompts) + 1):
        answer = answers[str(number)]
        print(
            json.dumps({"line": number, "text": answer.text} if answer.ok else {"line": number, "error": answer.error})
        )
    return 0 if all(answer.ok for answer in answers.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
