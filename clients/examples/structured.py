"""Asks for output of a given form, and gets objects: a pydantic model constrains the output and parses it.

python clients/examples/structured.py "A city in the Alps:" [--address HOST:PORT] [--model NAME]
"""

from __future__ import annotations

import argparse
import sys

import pydantic

import sage_client as sage


class City(pydantic.BaseModel):
    """What the model is to write."""

    name: str
    people: int


def main() -> int:
    """Print the city; return 1 if the output broke off before it was one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt")
    parser.add_argument("--address", default=None, help="default: SAGE_SCHEDULER_ADDRESS, else 127.0.0.1:50051")
    parser.add_argument("--model", default="")
    options = parser.parse_args()
    with sage.Client(options.address) as client:
        try:
            done = client.generate(
                options.prompt, response_format=City, max_tokens=128, model=options.model, deadline="30s"
            ).result()
        except sage.OutputInvalidError as error:
            written = error.partial.text if error.partial else ""
            print(f"error: {error}\nit wrote: {written}", file=sys.stderr)
            return 1
    city = done.parsed
    assert isinstance(city, City)
    print(f"{city.name}: {city.people:,} people")
    print(done.to_json(indent=2), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
