"""A modelled vLLM engine: continuous batching with chunked prefill, finite KV, a prefix cache."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from sage_simulator.kv_cache import KvCache
from sage_simulator.sequence import Sequence
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.pace import Pace

_STEPS_KEPT = 256  # latest steps between two heartbeats, as in vLLM's executor


@dataclass(slots=True)
class StepOutput:
    """What one step gave: attempts by number."""

    first: list[int] = field(default_factory=list)  # emitted their first token
    ended: list[int] = field(default_factory=list)  # emitted their last token


class EngineModel:
    """Runs sequences in steps, as vLLM's scheduler does.

    A step computes one token of each decoding sequence and, with what is left of ``max_batched_tokens``, chunks of
    prompts: first those begun, then waiting ones by engine priority and arrival, up to ``max_running`` sequences.  The
    last chunk of a prompt emits the first token.  Where a begun sequence gets no KV block, the one of the least
    priority that came last is preempted: it waits again and recomputes everything that is not in the prefix cache.
    Only whole KV blocks are shared, and at least one token of a prompt is computed.

    One step takes base + prefill tokens x a + running sequences x b + tokens of their contexts x c seconds
    (``Pace``), times what ``noise`` gives.  Decoding sequences move on together, so a step's cost does not depend on
    their number: each knows the step it ends at, and how many of them need a block in a step is counted by the step's
    number modulo the block size.

    KV is handed over as by vLLM's NIXL connector.  A sequence that keeps its KV leaves its blocks behind until
    ``release_kv``.  One that fetches gets blocks for its prompt, waits for ``fetched``, and computes its last prompt
    token anew; the time of the transfer is the caller's.
    """

    def __init__(
        self,
        facts: EngineFacts,
        pace: Pace,
        *,
        prefix_caching: bool = True,
        noise: Callable[[], float] | None = None,
    ) -> None:
        """Begin empty.  Raises ValueError if a step has no room for a token of each running sequence."""
        if facts.max_batched_tokens < facts.max_running:
            raise ValueError(
                f"max_batched_tokens ({facts.max_batched_tokens}) is less than max_running ({facts.max_running})"
            )
        self.facts = facts
        self.kv = KvCache(facts.kv_capacity_tokens // facts.kv_block_size)
        self.steps = 0
        self.busy = False  # a step runs
        self.busy_s = 0.0
        self.preemptions = 0
        self.prompt_tokens = 0  # computed so far, recomputed ones included
        self.generated_tokens = 0
        self.prefix_queries_tokens = 0
        self.prefix_hits_tokens = 0
        self._pace = pace
        self._noise = noise
        self._prefix_caching = prefix_caching
        self._block = facts.kv_block_size
        self._arrivals = 0
        self._sequences: dict[int, Sequence] = {}
        self._waiting: list[tuple[tuple[int, int], int]] = []  # heap of order and number; those gone are skipped
        self._waiting_count = 0
        self._prefilling: list[Sequence] = []  # begun, oldest first
        self._decoding: dict[int, Sequence] = {}
        self._fetching: dict[int, Sequence] = {}  # have blocks and wait for KV
        self._fetches: list[tuple[int, int]] = []  # that began: number, tokens; taken by ``take_fetches``
        self._kept: dict[int, tuple[int, list[int]]] = {}  # private blocks and prefixes kept for another engine
        self._blocks_due = [0] * self._block  # decoding sequences that need a block, by step number modulo block size
        self._ending: dict[int, list[Sequence]] = {}  # decoding sequences by the step they end at
        self._context = 0  # computed tokens of all begun sequences
        self._chunks: list[tuple[Sequence, int]] = []  # of the step that runs
        self._blocks_taken = False  # the next step's blocks of decoding sequences are taken already
        self._recent: deque[IterationSample] = deque(maxlen=_STEPS_KEPT)
        self._sample: tuple[int, int, int, float] = (0, 0, 0, 0.0)  # of the step that runs

    @property
    def running(self) -> int:
        """Sequences that have begun."""
        return len(self._decoding) + len(self._prefilling)

    @property
    def waiting(self) -> int:
        """Sequences that wait in the engine, preempted ones included."""
        return self._waiting_count

    @property
    def kv_used_tokens(self) -> int:
        """KV tokens in use, in whole blocks; idle prefixes do not count."""
        return self.kv.used_blocks * self._block

    def take_samples(self) -> list[IterationSample]:
        """Return the steps since the last call, oldest first, at most the latest 256."""
        taken = list(self._recent)
        self._recent.clear()
        return taken

    # ------------------------------------------------------------------ sequences in and out

    def add(
        self,
        number: int,
        *,
        prompt_tokens: int,
        output_tokens: int,
        priority: int = 0,
        prefixes: tuple[int, ...] = (),
        prefix_tokens: int = 512,
        keeps_kv: bool = False,
        fetches_kv: bool = False,
    ) -> None:
        """Take a request in.  ``prefix_tokens``: prompt tokens that each of ``prefixes`` stands for.

        ``keeps_kv``: keep its KV at its end.  ``fetches_kv``: its prompt's KV comes from another engine.
        """
        self._arrivals += 1
        bounds = [min(i * prefix_tokens, prompt_tokens) // self._block for i in range(len(prefixes) + 1)]
        sequence = Sequence(
            number,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            order=(priority if self.facts.supports_priority else 0, self._arrivals),
            prefixes=prefixes if self._prefix_caching else (),
            prefix_ends=bounds,
            keeps_kv=keeps_kv,
            fetches_kv=fetches_kv,
        )
        self._sequences[number] = sequence
        self._wait(sequence)

    def emitted(self) -> list[tuple[int, int]]:
        """Return each decoding request's number and the tokens that it has emitted."""
        steps = self.steps
        return [(number, each.output_tokens - each.ends_at_step + steps) for number, each in self._decoding.items()]

    def _emitted(self, sequence: Sequence) -> int:
        return sequence.output_tokens - (sequence.ends_at_step - self.steps)

    def abort(self, number: int) -> int | None:
        """Drop a request between two steps.  Returns the tokens it emitted; None if it is not here (any more)."""
        assert not self.busy, "an abort takes effect between two steps"
        sequence = self._sequences.pop(number, None)
        if sequence is None:
            return None
        if sequence.decoding or sequence in self._prefilling:
            self._stop(sequence)
        else:
            self._waiting_count -= 1
            self._forget_fetched(sequence)
        return sequence.emitted

    def emitted_by(self, number: int) -> int:
        """Count the tokens that a request emitted here so far; 0 if it is not here."""
        sequence = self._sequences.get(number)
        if sequence is None:
            return 0
        return self._emitted(sequence) if sequence.decoding else sequence.emitted

    def _wait(self, sequence: Sequence) -> None:
        heapq.heappush(self._waiting, (sequence.order, sequence.number))
        self._waiting_count += 1

    # ------------------------------------------------------------------ KV of other engines

    def take_fetches(self) -> list[tuple[int, int]]:
        """Return the fetches that have begun since the last call: number of the request, KV tokens."""
        taken, self._fetches = self._fetches, []
        return taken

    def fetched(self, number: int) -> None:
        """Note that the KV of a request has come; it can begin.  Does nothing if it is not fetching any more."""
        sequence = self._fetching.pop(number, None)
        if sequence is not None:
            sequence.fetched = True
            heapq.heappush(self._waiting, (sequence.order, sequence.number))

    def fetch_failed(self, number: int) -> None:
        """Have a request compute its prompt, as its KV did not come.  Does nothing if it is not fetching any more."""
        sequence = self._fetching.get(number)
        if sequence is not None:
            self._forget_fetched(sequence)
            heapq.heappush(self._waiting, (sequence.order, sequence.number))

    def release_kv(self, number: int) -> None:
        """Free the KV that a request left behind; nothing if it left none."""
        blocks, held = self._kept.pop(number, (0, []))
        self.kv.give_back(blocks)
        self.kv.let_go(held)

    def _begin_fetch(self, sequence: Sequence) -> bool:
        """Take blocks for the prompt and begin to fetch what is not in the prefix cache.  False if blocks are short."""
        hits = sequence.prefixes[: self.kv.cached_prefixes(sequence.prefixes)]
        sequence.held_blocks = sequence.prefix_ends[len(hits)]
        here = min(sequence.held_blocks * self._block, sequence.prompt_tokens - 1)
        blocks = self._private(sequence, sequence.prompt_tokens - 1)
        if blocks + self.kv.idle_among(hits) > self.kv.free_blocks:
            sequence.held_blocks = 0
            return False
        self.kv.hold(hits)
        self.kv.take(blocks)
        sequence.held = list(hits)
        sequence.published = len(hits)
        sequence.computed = sequence.prompt_tokens - 1
        sequence.fetches_kv = False
        self._fetching[sequence.number] = sequence
        self._fetches.append((sequence.number, sequence.prompt_tokens - here))
        return True

    def _forget_fetched(self, sequence: Sequence) -> None:
        """Free the blocks of a sequence that fetches or has fetched, and has not begun."""
        if self._fetching.pop(sequence.number, None) is None and not sequence.fetched:
            return
        self.kv.give_back(self._private(sequence, sequence.computed))
        self.kv.let_go(sequence.held)
        self._nothing_computed(sequence)

    # ------------------------------------------------------------------ steps

    def start_step(self) -> float | None:
        """Plan the next step; returns how long it takes, in seconds.  None if there is nothing to compute."""
        assert not self.busy, "steps run one after the other"
        while True:
            preempted = self.preemptions
            self._chunks.clear()
            self._take_decode_blocks()
            budget = self._continue_prompts(self.facts.max_batched_tokens)
            if self._waiting and self.preemptions == preempted:
                self._begin_prompts(budget - len(self._decoding))
            self._blocks_taken = False
            if self._decoding or self._chunks:
                return self._begin_step()
            if self.preemptions == preempted:
                return None

    def _begin_step(self) -> float:
        prefill = 0
        for _, tokens in self._chunks:
            prefill += tokens
        decode = len(self._decoding)
        running = decode + len(self._chunks)
        took_s = self._pace.iteration_s(prefill, running, self._context + decode + prefill)
        if self._noise is not None:
            took_s *= self._noise()
        self._sample = (prefill, decode, running, took_s)
        self.busy = True
        return took_s

    def finish_step(self) -> StepOutput:
        """End the step that runs: its tokens are there."""
        assert self.busy, "a step was started"
        self.busy = False
        prefill, decode, running, took_s = self._sample
        self.steps += 1
        self.busy_s += took_s
        self.prompt_tokens += prefill
        self.generated_tokens += decode
        self._context += decode + prefill
        output = StepOutput()
        for sequence in self._ending.pop(self.steps, ()):
            if sequence.decoding and sequence.ends_at_step == self.steps:
                self._end(sequence, output)
        for sequence, tokens in self._chunks:
            self._computed(sequence, tokens, output)
        self._chunks.clear()
        self._recent.append(
            IterationSample(
                prefill_tokens=prefill,
                decode_tokens=decode,
                running=running,
                kv_used_tokens=self.kv_used_tokens,
                elapsed_s=took_s,
            )
        )
        return output

    def _take_decode_blocks(self) -> None:
        """Take the blocks that decoding sequences need in the next step."""
        due = (self.steps + 1) % self._block
        while self._blocks_due[due] > self.kv.free_blocks:
            self._preempt()
        if blocks := self._blocks_due[due]:
            self.kv.take(blocks)
        self._blocks_taken = True

    def _continue_prompts(self, budget: int) -> int:
        """Plan chunks of the prompts that have begun.  Returns what is left of the budget for decoding and others."""
        if not self._prefilling:
            return budget
        for sequence in list(self._prefilling):
            if sequence not in self._prefilling:
                continue  # preempted for one before it
            tokens = min(sequence.to_compute, budget - len(self._decoding))
            while tokens > 0 and self._blocks_for(sequence, tokens) > self.kv.free_blocks:
                if self._preempt() is sequence:
                    tokens = 0
            if tokens > 0:
                self.kv.take(self._blocks_for(sequence, tokens))
                self._chunks.append((sequence, tokens))
                budget -= tokens
        self._chunks = [(each, tokens) for each, tokens in self._chunks if each in self._prefilling]
        return budget

    def _begin_prompts(self, budget: int) -> None:
        """Plan first chunks of waiting prompts, as far as slots, budget and KV blocks allow."""
        while self._waiting and budget > 0 and self.running < self.facts.max_running:
            sequence = self._sequences.get(self._waiting[0][1])
            if sequence is None:  # aborted
                heapq.heappop(self._waiting)
                continue
            if sequence.fetches_kv:
                if not self._begin_fetch(sequence):
                    return
                heapq.heappop(self._waiting)
                continue
            if not self._begin(sequence, budget):
                return
            budget -= self._chunks[-1][1]

    def _begin(self, sequence: Sequence, budget: int) -> bool:
        """Plan the first chunk of the prompt that waits first.  False if blocks are short."""
        hits: Items[int] = ()
        if not sequence.fetched:
            hits = sequence.prefixes[: self.kv.cached_prefixes(sequence.prefixes)]
            sequence.held_blocks = sequence.prefix_ends[len(hits)]
            # The token whose successor is asked for is always computed.
            most = (sequence.prompt_tokens + sequence.emitted - 1) // self._block * self._block
            sequence.computed = min(sequence.held_blocks * self._block, most)
        tokens = min(sequence.to_compute, budget)
        if self._blocks_for(sequence, tokens) + self.kv.idle_among(hits) > self.kv.free_blocks:
            if not sequence.fetched:
                sequence.computed = sequence.held_blocks = 0
            return False
        heapq.heappop(self._waiting)
        self._waiting_count -= 1
        if not sequence.fetched:
            self.kv.hold(hits)
            sequence.held = list(hits)
            sequence.published = len(hits)
            sequence.cached_tokens = sequence.computed
            self.prefix_queries_tokens += sequence.prompt_tokens
            self.prefix_hits_tokens += sequence.computed
        sequence.fetched = False
        self.kv.take(self._blocks_for(sequence, tokens))
        self._context += sequence.computed
        self._prefilling.append(sequence)
        self._chunks.append((sequence, tokens))
        return True

    def _blocks_for(self, sequence: Sequence, tokens: int) -> int:
        """Count the private blocks that ``tokens`` more computed tokens need."""
        return self._private(sequence, sequence.computed + tokens) - self._private(sequence, sequence.computed)

    def _private(self, sequence: Sequence, computed: int) -> int:
        return max(0, -(-computed // self._block) - sequence.held_blocks)

    def _computed(self, sequence: Sequence, tokens: int, output: StepOutput) -> None:
        sequence.computed += tokens
        self._publish(sequence)
        if sequence.to_compute:
            return
        self._prefilling.remove(sequence)
        sequence.emitted += 1
        self.generated_tokens += 1
        if sequence.emitted == 1:
            output.first.append(sequence.number)
        sequence.decoding = True
        sequence.ends_at_step = self.steps + sequence.output_tokens - sequence.emitted
        self._decoding[sequence.number] = sequence
        self._blocks_due[self._phase(sequence)] += 1
        if sequence.ends_at_step == self.steps:
            self._end(sequence, output)
        else:
            self._ending.setdefault(sequence.ends_at_step, []).append(sequence)

    def _publish(self, sequence: Sequence) -> None:
        """Make prefixes that are computed now known to later sequences."""
        while sequence.published < len(sequence.prefixes):
            index = sequence.published
            end = sequence.prefix_ends[index + 1]
            if sequence.computed < end * self._block:
                return
            sequence.published += 1
            prefix, blocks = sequence.prefixes[index], end - sequence.prefix_ends[index]
            if self.kv.publish(prefix, blocks):
                sequence.held.append(prefix)
                sequence.held_blocks += blocks

    def _phase(self, sequence: Sequence) -> int:
        """Return when a sequence that has just begun to decode needs blocks: the step's number modulo block size."""
        return (self.steps + 1 - sequence.computed) % self._block

    # ------------------------------------------------------------------ ends

    def _end(self, sequence: Sequence, output: StepOutput) -> None:
        self._stop(sequence, keep=sequence.keeps_kv)
        del self._sequences[sequence.number]
        output.ended.append(sequence.number)

    def _preempt(self) -> Sequence:
        """Send the begun sequence of the least priority that came last back to wait."""
        victim = max([*self._decoding.values(), *self._prefilling], key=lambda each: each.order)
        self._stop(victim)
        self.preemptions += 1
        self._wait(victim)
        return victim

    def _stop(self, sequence: Sequence, *, keep: bool = False) -> None:
        """Free what a begun sequence holds, or keep it for another engine; it has computed nothing any more."""
        if sequence.decoding:
            emitted = self._emitted(sequence)
            phase = (sequence.ends_at_step - sequence.output_tokens + 1 - sequence.prompt_tokens + 1) % self._block
            self._blocks_due[phase] -= 1
            sequence.emitted = emitted
            sequence.computed = sequence.prompt_tokens + emitted - 1
            del self._decoding[sequence.number]
            sequence.decoding = False
            held = self._private(sequence, sequence.computed + self._blocks_taken)
        else:
            self._prefilling.remove(sequence)
            planned = sum(tokens for each, tokens in self._chunks if each is sequence)
            held = self._private(sequence, sequence.computed + planned)
        if keep:
            self._kept[sequence.number] = (held, sequence.held)
        else:
            self.kv.give_back(held)
            self.kv.let_go(sequence.held)
        self._context -= sequence.computed
        self._nothing_computed(sequence)

    def _nothing_computed(self, sequence: Sequence) -> None:
        sequence.computed = sequence.held_blocks = sequence.published = 0
        sequence.held = []
        sequence.fetched = False
