"""Sends many prompts, a limited number at a time.  While a queue is full, it waits as long as the scheduler says.

    python clients/examples/batch.py prompts.txt [--at-once N] [--address HOST:PORT] > answers.jsonl

Reads one prompt per line and prints one JSON object per line, in the order in which they end.  The exit status is 1 if
a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import sage_client as sage

ATTEMPTS = 5  # for a request that the scheduler cannot accept now


async def main() -> int:
    """Send all prompts; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--address", default=sage.DEFAULT_ADDRESS)
    parser.add_argument("--model", default="")
    parser.add_argument("--max-tokens", type=int, default=64)
    options = parser.parse_args()
    prompts = options.prompts.read_text().splitlines()
    slots = asyncio.Semaphore(options.at_once)

    async with sage.AsyncClient(options.address) as client:

        async def one(number: int, prompt: str) -> bool:
            async with slots:
                answer = await ask(client, prompt, options.model, options.max_tokens)
            print(json.dumps({"line": number, **answer}), flush=True)
            return "error" not in answer

        went_well = await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts, 1)))
    return 0 if all(went_well) else 1


async def ask(client: sage.AsyncClient, prompt: str, model: str, max_tokens: int) -> dict[str, object]:
    """Return the answer, or the error if there is none."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            result = await client.generate(
                prompt, model=model, max_tokens=max_tokens, priority="background", no_instance="wait"
            ).result()
        except sage.TryAgainError as error:
            if attempt == ATTEMPTS:
                return {"error": str(error)}
            await asyncio.sleep(error.retry_after_s or 1.0)
        except sage.SageError as error:
            return {"error": str(error)}
        else:
            return {"text": result.text, "tokens": len(result.token_ids), "instance": result.instance_id}
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
