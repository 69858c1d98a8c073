"""Looks at a fleet as an operator's program does: its models, its instances as they change, what was used.

python clients/examples/fleet.py [--snapshots N] [--address HOST:PORT]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import aclosing

import sage_client as sage


async def main() -> int:
    """Print the models, then a line per snapshot."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--snapshots", type=int, default=3)
    parser.add_argument("--address", default=None, help="default: SAGE_SCHEDULER_ADDRESS, else 127.0.0.1:50051")
    options = parser.parse_args()
    async with sage.AsyncClient(options.address) as client:
        for model in await client.models():
            task = "embeds" if model.embeds else "generates"
            print(f"{model.name}: {task}, {model.ready} of {model.instances} instances ready")
        left = options.snapshots
        async with aclosing(client.watch_fleet(interval=0.25)) as snapshots:
            async for snapshot in snapshots:
                first_token = snapshot.recent.time_to_first_token
                p95 = f"{first_token.p95_s:.3f} s" if first_token is not None else "not measured yet"
                states = ", ".join(f"{each.instance_id} {each.state.value}" for each in snapshot.instances)
                print(f"policy {snapshot.policy}; {snapshot.requests_waiting} waiting; TTFT p95 {p95}; {states}")
                left -= 1
                if left <= 0:
                    break
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
