"""What prefix-awareness costs: ``python -m tests.bench.core.bench_prefixes [--blocks N] [--json FILE]``.

Lookups in an index of 1,000 instances, each of which holds 100,000 KV blocks of 16 tokens, which are 25,000 blocks of
the index; and hashing a prompt.  Figures are CPU time of one process.  ``bench_core`` has decisions/s.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import process_time

from sage_common.prefix_hashes import prefix_hashes
from scheduler_svc.domain.prefixes.prefix_index import PrefixIndex
from tests.bench.report import Row, table

INSTANCES = 1_000
BLOCKS = 25_000  # of each instance
BLOCK_TOKENS = 64
PROMPT_BLOCKS = 128  # 8,192 tokens
SYSTEM_BLOCKS = 16  # of them, what every instance holds
_ROUNDS = 5
_LOOKUPS = 2_000


def conversation(instance: int, number: int) -> list[int]:
    """Return the hashes of a conversation that one instance holds; it begins with what all hold."""
    own = range(SYSTEM_BLOCKS, PROMPT_BLOCKS)
    return [*range(SYSTEM_BLOCKS), *((instance << 40) + (number << 20) + n for n in own)]


def full_index(instances: int, blocks: int) -> PrefixIndex:
    """Fill an index with conversations."""
    index = PrefixIndex(max_bytes=1 << 40)
    conversations = max(1, blocks // (PROMPT_BLOCKS - SYSTEM_BLOCKS))
    for instance in range(instances):
        name = f"i{instance:04}"
        index.open(name, capacity_tokens=1 << 40)
        for number in range(conversations):
            index.hold(name, conversation(instance, number), BLOCK_TOKENS)
    return index


def timed(
    name: str, prompts: Sequence[Sequence[int]], call: Callable[[Sequence[int]], object], *, calls: int = _LOOKUPS
) -> Row:
    """Measure the time of one call, in rounds of ``calls``."""
    rounds = []
    for _ in range(_ROUNDS):
        began = process_time()
        for n in range(calls):
            call(prompts[n % len(prompts)])
        rounds.append((process_time() - began) / calls * 1e6)
    return Row(
        benchmark="prefix index",
        case=name,
        value=median(rounds),
        unit="us",
        lowest=min(rounds),
        highest=max(rounds),
        target="",
        note="",
    )


def measure_hashing() -> list[Row]:
    """Measure the hashing of prompts, as it is done once for each request."""
    prompts = {tokens: [n * 7919 % 128_000 for n in range(tokens)] for tokens in (512, 8_192, 131_072)}
    return [
        timed(
            f"hashing a prompt of {tokens:,} tokens",
            [prompt],
            lambda prompt: prefix_hashes(prompt, BLOCK_TOKENS, model="m"),
            calls=max(5, 1_000_000 // tokens),
        )
        for tokens, prompt in prompts.items()
    ]


def measure(instances: int, blocks: int) -> list[Row]:
    """Measure lookups and updates in a full index."""
    index = full_index(instances, blocks)
    gc.collect()
    gc.freeze()
    conversations = max(1, blocks // (PROMPT_BLOCKS - SYSTEM_BLOCKS))
    some = [(n * 7 % instances, n * 3 % conversations) for n in range(500)]
    known = [conversation(*each) for each in some]
    unknown = [[-1 - n] * PROMPT_BLOCKS for n in range(500)]
    halfway = [each[: PROMPT_BLOCKS // 2] + [1 << 62] * (PROMPT_BLOCKS // 2) for each in known]
    own = [each[SYSTEM_BLOCKS:] for each in known]
    size = f"{instances:,} x {blocks:,}"

    def look_up(prompt: Sequence[int]) -> object:
        return index.cached_tokens(prompt, BLOCK_TOKENS)

    rows = [
        timed(f"{size}: nobody holds any of 8,192 tokens", unknown, look_up),
        timed(f"{size}: one instance holds all", own, look_up),
        timed(f"{size}: all hold 1,024 tokens, one holds all", known, look_up),
        timed(f"{size}: all hold 1,024 tokens, one holds half", halfway, look_up),
        timed(f"{size}: a placement, 8,192 tokens held already", own, lambda p: index.hold("i0000", p, BLOCK_TOKENS)),
    ]
    rows.append(
        Row(
            benchmark="prefix index",
            case=f"{size}: estimated memory",
            value=index.used_bytes / 2**20,
            unit="MiB",
            lowest=index.used_bytes / 2**20,
            highest=index.used_bytes / 2**20,
            target="",
            note="",
        )
    )
    gc.unfreeze()
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.core.bench_prefixes", description=__doc__)
    parser.add_argument("--instances", type=int, default=INSTANCES, help="instances in the index")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="blocks of the index that each instance holds")
    parser.add_argument("--json", type=Path, help="write the JSON there as well")
    options = parser.parse_args(arguments)
    rows = [*measure_hashing(), *measure(options.instances, options.blocks)]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
