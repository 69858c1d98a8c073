"""The demonstration of prefill/decode separation: a mix of requests, then a comparison."""

from __future__ import annotations

import asyncio
import time

import sage_client as sage
from sage_local.demo.demo_fleet import run_on_fleet
from sage_local.demo.display import Display
from sage_local.demo.interference import SHORT_OUTPUT, SHORT_PROMPT, STREAMS, Figures, Load, Turn, figures, run_turn
from sage_local.demo.prompts import Prompts
from sage_local.demo.split_request import SplitRequest, run_request
from sage_local.fleet.ports import free_address
from sage_local.fleet.spec import FleetSpec

PREFILL, DECODE = "executor-1", "executor-2"
ROLES = {PREFILL: "prefilling", DECODE: "decoding"}
LONG_TOKENS = 3_000  # prompt tokens of a long request, or three quarters of the model's length
THRESHOLD = 2_048  # prompt tokens from which requests are split, or two thirds of a long one
MIX = ("short", "long", "short", "ratio", "short", "one token", "long", "short", "long", "short")
MIX_GAP_S = 0.3
TURNS = ("general", "split", "general", "split")
TURN_S = 12.0  # intended seconds of a turn of the comparison
TURN_TIMEOUT_S = 300.0
PAIR_TIMEOUT_S = 60.0
POLL_S = 0.05


def prefill_decode_demo_spec(engine: str, model: str) -> FleetSpec:
    """Return the spec of one prefill and one decode executor on a free port of this machine."""
    return FleetSpec(
        executors=len(ROLES),
        roles=tuple(ROLES.values()),
        engine="simulated" if engine == "simulated" else "vllm",
        model=model,
        address=free_address(),
        policy="fifo",
        drain_timeout_s=10.0,
    )


async def run_prefill_decode_demo(spec: FleetSpec, display: Display, *, turn_s: float = TURN_S) -> int:
    """Run the demonstration; return 0 only if every request finished and the long ones were split."""
    return await run_on_fleet(spec, display, PrefillDecodeDemo(display, turn_s=turn_s).run)


class PrefillDecodeDemo:
    """Runs both parts on a READY fleet of one prefill and one decode executor."""

    def __init__(self, display: Display, *, turn_s: float) -> None:
        self._display = display
        self._turn_s = turn_s

    async def run(self, client: sage.AsyncClient) -> list[str]:
        """Run the mix and the comparison; return what went wrong."""
        try:
            prompts = await Prompts.measured(client)
            long_tokens = await self._long_tokens(client)
            await client.set_prefill_decode(
                "threshold", threshold_input_tokens=min(THRESHOLD, long_tokens * 2 // 3), threshold_ratio=4.0
            )
            await self._pair_up(client)
            mix = await self._run_mix(client, prompts, long_tokens)
            problems = [f"{each.kind} request: {each.error}" for each in mix if each.error] or not_split(mix)
            return problems or await self._compare(client, prompts, mix, long_tokens)
        except (sage.SageError, PairNotUsable) as error:
            return [str(error)]

    async def _long_tokens(self, client: sage.AsyncClient) -> int:
        instance = await client.get_instance(DECODE)
        return min(LONG_TOKENS, instance.max_model_len * 3 // 4)

    # --- a mix of requests ------------------------------------------------------------------------

    async def _run_mix(self, client: sage.AsyncClient, prompts: Prompts, long_tokens: int) -> list[SplitRequest]:
        config = (await client.get_prefill_decode()).config
        self._display.heading(
            f"long and short prompts; split from {config.threshold_input_tokens} prompt tokens on, or from "
            f"{config.threshold_ratio:g} times the predicted output"
        )
        self._display.say(
            "  rows come in the order in which the requests end: its kind and prompt, split or whole, where it ran (a "
            "split one: prefill -> decode), where its time went, time to first token (TTFT), and why"
        )
        shapes = {
            "short": (SHORT_PROMPT, 48),
            "long": (long_tokens, 48),
            "ratio": (long_tokens // 5, 16),
            "one token": (long_tokens, 1),
        }

        async def one(kind: str) -> SplitRequest:
            tokens, output = shapes[kind]
            seen = await run_request(client, kind, prompts.of(tokens), output)
            self._display.split_request(seen)
            return seen

        tasks: list[asyncio.Task[SplitRequest]] = []
        async with asyncio.TaskGroup() as group:
            for kind in MIX:
                tasks.append(group.create_task(one(kind), name=kind))
                await asyncio.sleep(MIX_GAP_S)
        return [task.result() for task in tasks]

    # --- the comparison ---------------------------------------------------------------------------

    async def _compare(
        self, client: sage.AsyncClient, prompts: Prompts, mix: list[SplitRequest], long_tokens: int
    ) -> list[str]:
        prefill_s = await self._prefill_s(client, prompts, mix, long_tokens)
        load = Load.fitting(long_tokens=long_tokens, prefill_s=prefill_s, turn_s=self._turn_s)
        self._display.heading("what long prompts do to short streams")
        self._display.say(
            f"  {STREAMS} streams at a time of {SHORT_PROMPT} prompt and {SHORT_OUTPUT} output tokens, while a prompt "
            f"of {long_tokens} tokens comes every {load.every_s:.2f} s, {load.longs} in a turn"
        )
        self._display.say(
            "  the same two engines throughout, at their own prefill chunk, in turns: both general, whole requests on "
            "either; then one prefills what is long, the other runs the rest"
        )
        turns: dict[str, list[Turn]] = {"general": [], "split": []}
        for arrangement in TURNS:
            await (self._pair_up(client) if arrangement == "split" else self._general(client))
            try:
                async with asyncio.timeout(TURN_TIMEOUT_S):
                    turn = await run_turn(client, prompts, load)
            except TimeoutError:
                return [f"the requests of a turn did not end within {TURN_TIMEOUT_S:g} s"]
            if turn.problems:
                return turn.problems
            turns[arrangement].append(turn)
        try:
            found = {arrangement: figures(taken) for arrangement, taken in turns.items()}
        except ValueError as error:
            return [str(error)]
        self._display.interference(found)
        return wrongly_placed(found)

    async def _prefill_s(
        self, client: sage.AsyncClient, prompts: Prompts, mix: list[SplitRequest], long_tokens: int
    ) -> float:
        """Return the shortest prefill time in seconds of the long requests; those of the mix may have waited."""
        alone = await run_request(client, "long", prompts.of(long_tokens), 2)
        taken = [each.timings.prefill_s for each in (*mix, alone) if each.kind == "long" and each.timings is not None]
        return min(each for each in taken if each is not None)

    async def _general(self, client: sage.AsyncClient) -> None:
        await client.set_prefill_decode("never")
        for name in ROLES:
            await client.set_instance_role(name, "general")

    async def _pair_up(self, client: sage.AsyncClient) -> None:
        """Give the executors their roles and wait until the pair is usable.

        Raises:
            SageError: the scheduler refused a change.
            PairNotUsable: the pair is not usable in time.
        """
        for name, role in ROLES.items():
            await client.set_instance_role(name, role)
        await client.set_prefill_decode("threshold")
        late = time.monotonic() + PAIR_TIMEOUT_S
        while True:
            status = await client.get_prefill_decode()
            if [each.state for each in status.pairs] == [sage.PairState.USABLE]:
                return
            if time.monotonic() > late:
                raise PairNotUsable(f"no usable pair in {PAIR_TIMEOUT_S:g} s: {'; '.join(status.conditions)}")
            await asyncio.sleep(POLL_S)


class PairNotUsable(Exception):
    """The two executors cannot hand KV over."""


def not_split(mix: list[SplitRequest]) -> list[str]:
    """Return a message for each long request that was not split, with the reason."""
    return [
        f"a {each.kind} request was not split: {each.why}" for each in mix if each.kind == "long" and not each.split
    ]


def wrongly_placed(found: dict[str, Figures]) -> list[str]:
    """Return messages about requests that were split in the wrong arrangement, or not in the right one."""
    whole = found["split"].longs - found["split"].split
    problems = [f"{whole} long requests ran whole where they should have been split"] if whole else []
    if found["general"].split:
        problems.append(f"{found['general'].split} long requests were split where none should have been")
    return problems
