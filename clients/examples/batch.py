"""Many prompts, a bounded number of them at once; a full queue is waited out as long as the scheduler says.

    python clients/examples/batch.py prompts.txt [--at-once N] [--address HOST:PORT] > answers.jsonl

One prompt per line in, one JSON object per line out, in the order in which they end.  Exit status 1 if any failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import sage_client as sage

ATTEMPTS = 5  # of a request that the scheduler cannot take now


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--address", default=sage.DEFAULT_ADDRESS)
    parser.add_argument("--model", default="")
    parser.add_argument("--max-tokens", type=int, default=64)
    options = parser.parse_args()
    prompts = options.prompts.read_text().splitlines()
    room = asyncio.Semaphore(options.at_once)

    async with sage.AsyncClient(options.address) as client:

        async def one(number: int, prompt: str) -> bool:
            async with room:
                answer = await ask(client, prompt, options.model, options.max_tokens)
            print(json.dumps({"line": number, **answer}), flush=True)
            return "error" not in answer

        went_well = await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts, 1)))
    return 0 if all(went_well) else 1


async def ask(client: sage.AsyncClient, prompt: str, model: str, max_tokens: int) -> dict[str, object]:
    """The answer, or why there is none."""
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
