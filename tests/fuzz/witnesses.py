"""Normal clients that run all the time: each has to get exactly what an engine answers that is asked directly."""

from __future__ import annotations

import asyncio
import secrets

from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncClient, SageError
from tests.fuzz.findings import Findings
from tests.fuzz.known_values import KnownValues
from tests.support.simulated_answer import answer

CLIENTS = 4
PROMPTS = 6
LENGTHS = (3, 40, 160)
TIMEOUT_S = 50.0
PAUSE_S = 0.02
SHOWN = 40  # characters of an answer that nobody else may be told


class Witnesses:
    """Clients of one tenant; half of its request ids are known to the fuzzer."""

    def __init__(self, client: AsyncClient, findings: Findings, known: KnownValues) -> None:
        self.finished = 0
        self._client = client
        self._findings, self._known = findings, known
        self._secret = f"hush-{secrets.token_hex(8)}"
        self._wanted: dict[tuple[str, int], tuple[tuple[int, ...], str]] = {}
        self._stopping = False

    async def prepare(self) -> None:
        """Ask an engine directly for every answer."""
        for number in range(PROMPTS):
            for length in LENGTHS:
                prompt = f"Tale {number} of {self._secret}"
                found = await answer(prompt, Sampling(temperature=0, max_tokens=length))
                self._wanted[prompt, length] = (found.token_ids, found.text)
                if len(found.text) >= SHOWN:
                    self._findings.keep_secret(found.text[:SHOWN])
        self._findings.keep_secret(self._secret)

    async def run(self) -> None:
        """Send request after request until ``stop``."""
        await asyncio.gather(*(self._client_loop(number) for number in range(CLIENTS)))

    def stop(self) -> None:
        """Let every client end with the request it is at."""
        self._stopping = True

    async def _client_loop(self, client: int) -> None:
        asked = list(self._wanted.items())
        turn = 0
        while not self._stopping:
            (prompt, length), wanted = asked[(client * 5 + turn) % len(asked)]
            known = turn % 2 == 0
            request_id = f"known-{client}-{turn}" if known else f"{self._secret}-{client}-{turn}"
            if known:
                self._known.add("request_id", request_id)
            await self._one(request_id, prompt, length, wanted)
            turn += 1
            await asyncio.sleep(PAUSE_S)

    async def _one(self, request_id: str, prompt: str, length: int, wanted: tuple[tuple[int, ...], str]) -> None:
        stream = self._client.generate(
            prompt,
            model="sim",
            request_id=request_id,
            temperature=0,
            max_tokens=length,
            no_instance="wait",
            session=self._secret,
            tags={"note": self._secret},
            timeout=TIMEOUT_S,
        )
        try:
            done = await stream.result()
        except SageError as error:
            self._findings.add(f"witness {request_id} failed: {error!r}")
            return
        self.finished += 1
        if (tuple(done.token_ids), done.text) != wanted:
            self._findings.add(f"witness {request_id}: {list(done.token_ids)}, not {list(wanted[0])}")
