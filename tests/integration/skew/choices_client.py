"""Asks for three choices with whichever SDK is on the path, and prints what came as JSON.

Runs as a script: ``choices_client.py ADDRESS PROMPT MAX_TOKENS``.
"""

from __future__ import annotations

import asyncio
import json
import sys

from sage_client import AsyncClient, InvalidRequestError


async def main(address: str, prompt: str, max_tokens: int) -> None:
    options = {"n": 3, "seed": 7, "temperature": 1.0, "max_tokens": max_tokens, "ignore_eos": True, "timeout": 60}
    async with AsyncClient(address) as client:
        try:
            done = await client.generate(prompt, **options).result()  # type: ignore[arg-type]
        except InvalidRequestError as error:
            print(json.dumps({each.field: each.description for each in error.violations}))
        else:
            print(json.dumps([list(each.token_ids) for each in done.choices]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
