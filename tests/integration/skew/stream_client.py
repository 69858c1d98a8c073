"""Streams one request with whichever SDK is on the path, and prints an event a line, as JSON.

Runs as a script: ``stream_client.py ADDRESS PROMPT MAX_TOKENS``.
"""

from __future__ import annotations

import asyncio
import json
import sys

from sage_client import AsyncClient, Scheduled, Tokens


async def main(address: str, prompt: str, max_tokens: int) -> None:
    async with AsyncClient(address) as client:
        stream = client.generate(prompt, max_tokens=max_tokens, temperature=0, ignore_eos=True, timeout=60)
        async for event in stream:
            if isinstance(event, Scheduled):
                say(instance=event.decision.instance_id)
            elif isinstance(event, Tokens):
                say(token_ids=list(event.token_ids))
        done = await stream.result()
        say(text=done.text, all_token_ids=list(done.token_ids), attempts=done.attempts)


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
