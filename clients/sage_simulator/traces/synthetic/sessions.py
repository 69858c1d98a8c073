"""Sessions of several turns: each turn's prompt is the conversation so far and a new text."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, islice

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.prefix_blocks import PrefixBlocks, content_id
from sage_simulator.traces.synthetic.lengths import Lengths
from sage_simulator.traces.synthetic.tenants import Tenant


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionShape:
    """What the sessions of a trace are like.  Raises ValueError on a value out of its bounds."""

    texts: Lengths  # tokens that the caller adds in each turn
    outputs: Lengths  # tokens that each turn generates
    mean_turns: float = 4.0  # >= 1; the number of turns is geometric
    most_turns: int = 50  # >= 1
    most_prompt_tokens: int = 32_768  # a session ends rather than exceed it; a first text is cut to fit
    mean_think_s: float = 20.0  # from the end of an answer to the next turn, exponential; 0: at once
    # A trace holds the times of arrival, so the answers' times are assumed.
    assumed_ttft_s: float = 0.5
    assumed_tpot_s: float = 0.03
    block_tokens: int = 64  # tokens that each block hash stands for

    def __post_init__(self) -> None:
        least = {"mean_turns": 1, "most_turns": 1, "most_prompt_tokens": 1, "block_tokens": 1}
        least |= {"mean_think_s": 0, "assumed_ttft_s": 0, "assumed_tpot_s": 0}
        for name, bound in least.items():
            if not bound <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and at least {bound}, got {getattr(self, name)}")


@dataclass(kw_only=True, slots=True)
class _Session:
    """A session that has turns left."""

    name: str
    tenant: str
    prompt: PrefixBlocks
    turns: int = 0  # so far


def multi_turn_sessions(
    rng: random.Random,
    starts: Iterable[float],
    requests: int,
    shape: SessionShape,
    tenants: Sequence[Tenant] = (Tenant(name="default"),),
) -> list[TracedRequest]:
    """Return the first requests of sessions that start at these times, in the order of arrival.

    Fewer where the starts end before.  The first turns of all sessions make a ramp: cut it off with `window` for a
    steady load.  For single requests with a shared system prompt, set `mean_turns` to 1.
    Raises ValueError where a system prompt leaves no room in a prompt.
    """
    for tenant in tenants:
        if tenant.system_prompt_tokens >= shape.most_prompt_tokens:
            raise ValueError(f"the system prompt of tenant {tenant.name!r} leaves no room in a prompt")
    return list(islice(_turns(rng, starts, shape, tenants), requests))


def _turns(
    rng: random.Random, starts: Iterable[float], shape: SessionShape, tenants: Sequence[Tenant]
) -> Iterator[TracedRequest]:
    numbers = count()  # so that sessions are never compared
    waiting: list[tuple[float, int, _Session]] = []  # the next turn of each session, a heap by arrival
    for start_s in starts:
        while waiting and waiting[0][0] <= start_s:
            yield from _next_turn(rng, shape, waiting)
        number = next(numbers)
        [tenant] = rng.choices(tenants, [each.weight for each in tenants])
        prompt = tenant.system_prompt(shape.block_tokens)
        heappush(waiting, (start_s, number, _Session(name=f"session-{number}", tenant=tenant.name, prompt=prompt)))
    while waiting:
        yield from _next_turn(rng, shape, waiting)


def _next_turn(
    rng: random.Random, shape: SessionShape, waiting: list[tuple[float, int, _Session]]
) -> Iterator[TracedRequest]:
    """Take the earliest turn off the heap; put the session's next one onto it, if there is one."""
    arrival_s, number, session = heappop(waiting)
    session.turns += 1
    text_tokens, output_tokens = shape.texts.draw(rng), shape.outputs.draw(rng)
    room = shape.most_prompt_tokens - session.prompt.tokens
    if session.turns == 1:
        text_tokens = min(text_tokens, room)
    elif text_tokens > room:
        return
    session.prompt.append(content_id(f"{session.name}/{session.turns}"), text_tokens)
    yield TracedRequest(
        arrival_s=arrival_s,
        prompt_tokens=session.prompt.tokens,
        output_tokens=output_tokens,
        block_hashes=tuple(session.prompt.hashes),
        block_tokens=shape.block_tokens,
        tenant=session.tenant,
        session=session.name,
    )
    if session.turns < shape.most_turns and rng.random() >= 1 / shape.mean_turns:
        session.prompt.append(content_id(f"{session.name}/{session.turns}/answer"), output_tokens)
        think_s = rng.expovariate(1 / shape.mean_think_s) if shape.mean_think_s else 0.0
        answer_s = shape.assumed_ttft_s + shape.assumed_tpot_s * (output_tokens - 1)
        heappush(waiting, (arrival_s + answer_s + think_s, number, session))
