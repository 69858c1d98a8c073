"""Requests, engines and what these report, drawn at random for a fleet of some kind."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from scheduler_svc.domain.engine_facts import EngineFacts, RunTimeAdapters
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.request import Priority, Request, RequestKey, Sampling, StructuredOutput
from tests.contract.policies.modelled_fleet import make_facts, make_request

_BLOCK = 16  # tokens
_LONGEST_PREFIX = 12  # blocks
_PREFIXES = tuple(tuple(range(1_000 * n, 1_000 * n + _LONGEST_PREFIX)) for n in range(5))


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetKind:
    """What a fleet has to do, and whether its engines differ."""

    busy: bool  # else most requests find room at once
    plain: bool  # every engine serves every request; most prompts begin alike
    splits: bool  # long prompts are split between two instances

    @classmethod
    def drawn(cls, rng: Random) -> FleetKind:
        """Draw one of the kinds."""
        return cls(busy=rng.random() < 0.5, plain=rng.random() < 0.5, splits=rng.random() < 0.3)


def draw_request(rng: Random, kind: FleetKind, number: int, now: float, *, preferred: str) -> Request:
    """Draw a request that arrives now; some prefer the instance ``preferred``."""
    odd = not kind.plain and rng.random() < 0.15
    prefix = rng.choice(_PREFIXES)[: _blocks(rng)] if rng.random() < (0.9 if kind.plain else 0.3) else ()
    constraint = StructuredOutput(kind="regex", value="a*") if odd and rng.random() < 0.4 else None
    return make_request(
        number,
        prompt=len(prefix) * _BLOCK + rng.choice([1, 16, 200, 900]),
        key=RequestKey(tenant=rng.choice("tu"), request_id=str(number)),
        sampling=Sampling(max_tokens=rng.choice([1, 20, 100]), structured_output=constraint),
        priority=rng.choice([*Priority, *[Priority.NORMAL] * 5]),
        arrived_at=now,
        ttft_target_s=rng.choice([None, None, 0.01, 0.5, 5.0]),
        tpot_target_s=rng.choice([None, None, 0.02, 0.5]),
        deadline_at=rng.choice([None, None, now + 0.5, now + 50.0]),
        session=rng.choice(["", "", "a", "b"]),
        preferred_instance=rng.choice(["", "", "", "", preferred]),
        cost_budget=rng.choice([None, None, None, 1e-5, 1.0]),
        adapter=rng.choice(["one", "two"]) if odd and rng.random() < 0.5 else "",
        tokenizer_hash=rng.choice("xyz") if odd else rng.choice(["", "x"]),
        largest_token_id=rng.choice([0, 700, 1_500]) if odd else 0,
        prefix_hashes=prefix,
        prefix_block_tokens=_BLOCK if prefix or rng.random() < 0.5 else 0,
    )


def draw_facts(rng: Random, kind: FleetKind) -> EngineFacts:
    """Draw the facts of an engine."""
    odd = not kind.plain and rng.random() < 0.3
    return make_facts(
        max_running=rng.choice([1, 2, 4] if kind.busy else [4, 8]),
        kv_capacity_tokens=rng.choice([1_200, 4_096, 65_536]),
        kv_block_size=rng.choice([16, 128]),
        max_batched_tokens=rng.choice([64, 256, 2_048]),
        max_model_len=rng.choice([800, 8_192]) if odd else 8_192,
        tokenizer_hash=rng.choice("xy") if odd else "x",
        vocab_size=rng.choice([1_000, 2_000]),
        structured_output_kinds=frozenset({"regex"}) if rng.random() < 0.5 else frozenset(),
        supports_priority=rng.random() < 0.5,
        kv_connector="modelled" if kind.splits else "",
        compatibility_key="k" if kind.splits else "",
        prefix_caching=kind.plain or rng.random() < 0.5,
    )


def draw_adapters(rng: Random) -> RunTimeAdapters:
    """Draw which of two adapters an engine has, and which it can load."""
    loaded = {each: "w" for each in ("one", "two") if rng.random() < 0.4}
    return RunTimeAdapters(loaded=loaded, loadable=frozenset({"one"} - loaded.keys()))


def draw_load(rng: Random, number: int, last_assign: int) -> LoadReport:
    """Draw a heartbeat; from many of them an engine's speed is learned."""
    sample = IterationSample(
        prefill_tokens=rng.choice([0, 50, 500]),
        decode_tokens=rng.randint(0, 4),
        running=rng.randint(1, 4),
        kv_used_tokens=rng.randint(0, 3_000),
        elapsed_s=rng.choice([0.005, 0.02, 0.3]),
    )
    return LoadReport(
        number=number,
        last_assign=last_assign,
        running=1,
        waiting=0,
        unfinished=1,
        kv_used_tokens=rng.choice([0, 300, 3_000]),
        iterations=number,
        samples=(sample,) * rng.choice([0, 1, 30]),
    )


def draw_cache_report(rng: Random) -> CacheReport:
    """Draw what an engine says of its prefix cache."""
    stored, removed = rng.choice(_PREFIXES)[: _blocks(rng)], rng.choice(_PREFIXES)[_blocks(rng) :]
    return CacheReport(block_tokens=_BLOCK, cleared=rng.random() < 0.2, removed=removed, stored=stored)


def _blocks(rng: Random) -> int:
    return rng.randint(0, _LONGEST_PREFIX)
