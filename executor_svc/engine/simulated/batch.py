"""Continuous batching as in vLLM: decides how many tokens each sequence computes in the next step.

Running sequences go first (one decode token each, or the next chunk of their prompt), then waiting ones by
priority, within ``max_running`` sequences and ``max_batched_tokens`` tokens.  When a running sequence finds
no free KV block, the running sequence with the highest (priority, arrival) loses its blocks and waits again; its
prompt and output are computed again.  A sequence whose prompt is fetched from another engine gets its blocks when
its turn comes, waits outside the running ones until the KV has arrived, and then starts before all waiting ones.
This module only counts: it has no time and no tasks.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from executor_svc.engine.simulated.kv import KvPool
from executor_svc.engine.simulated.sequence import Sequence
from executor_svc.runtime.engine_port import BlocksStored


@dataclass(slots=True)
class StepPlan:
    """The work of one step."""

    budget: int  # tokens that may still be added
    work: dict[Sequence, int] = field(default_factory=dict)  # tokens to compute, in scheduling order
    prefill_tokens: int = 0
    decode_tokens: int = 0

    def add(self, sequence: Sequence, tokens: int) -> None:
        """Have the step compute ``tokens`` of a sequence."""
        self.work[sequence] = tokens
        self.budget -= tokens

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out of the step.  Idempotent."""
        self.budget += self.work.pop(sequence, 0)


class Batch:
    """All sequences of one engine, waiting and running."""

    def __init__(self, *, kv: KvPool, max_running: int, max_batched_tokens: int) -> None:
        self.kv = kv
        self.running: list[Sequence] = []
        self.waiting_count = 0
        self.preemptions = 0
        self.prefix_queries_tokens = 0
        self.prefix_hits_tokens = 0
        self._max_running = max_running
        self._max_batched_tokens = max_batched_tokens
        self._heap: list[tuple[tuple[int, int], Sequence]] = []
        self._fetching: set[Sequence] = set()  # have the blocks that their KV is being fetched into
        self._fetched: deque[Sequence] = deque()  # have their KV and start next

    def forget_work(self) -> None:
        """Count from here on: what ran so far was no request of anybody's."""
        self.preemptions = self.prefix_queries_tokens = self.prefix_hits_tokens = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute; sequences whose KV is being fetched do not count."""
        return not (self.running or self.waiting_count or self._fetched)

    @property
    def fetching_count(self) -> int:
        """Number of sequences whose KV is being fetched, or was fetched since the last step."""
        return len(self._fetching) + len(self._fetched)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence among the waiting ones."""
        sequence.waiting = True
        self.waiting_count += 1
        heapq.heappush(self._heap, (sequence.rank, sequence))

    def remove(self, sequence: Sequence) -> None:
        """Take an ended sequence out and free its blocks."""
        sequence.ended = True
        if sequence.waiting:
            sequence.waiting = False
            self.waiting_count -= 1
            self._drop_stale_entries()
        elif sequence in self._fetching:
            self._fetching.remove(sequence)
        elif sequence in self._fetched:
            self._fetched.remove(sequence)
        else:
            self.running.remove(sequence)
        self.kv.release(sequence.lease)

    def fetched(self, sequence: Sequence, *, sound: bool) -> None:
        """Note that a sequence's KV has arrived.  KV that is not ``sound`` is not offered to other prompts."""
        self._fetching.remove(sequence)
        before, sequence.computed = sequence.computed, sequence.prompt_tokens - 1  # the last one is computed here
        if sound:
            self._publish(sequence, before)
        self._fetched.append(sequence)

    def not_fetched(self, sequence: Sequence) -> None:
        """Put a sequence back among the waiting ones: its KV could not be fetched, so its prompt is computed here."""
        if sequence in self._fetching:
            self._fetching.remove(sequence)
            self.kv.release(sequence.lease)
            self.add(sequence)

    def _drop_stale_entries(self) -> None:
        if len(self._heap) > 2 * self.waiting_count + 64:
            self._heap = [entry for entry in self._heap if entry[1].waiting]
            heapq.heapify(self._heap)

    def plan(self) -> StepPlan:
        """Choose the next step's work and take the blocks it needs."""
        plan = StepPlan(budget=self._max_batched_tokens)
        preempted_before = self.preemptions
        for sequence in list(self.running):
            if sequence.waiting or not plan.budget:
                continue
            tokens = min(len(sequence.tokens) - sequence.computed, plan.budget)
            if self._take_blocks(sequence, tokens, plan):
                plan.add(sequence, tokens)
        if self.preemptions == preempted_before:
            self._start_waiting(plan)
        self._count(plan)
        return plan

    def _take_blocks(self, sequence: Sequence, tokens: int, plan: StepPlan) -> bool:
        """Take the blocks for ``tokens`` more tokens, preempting other sequences if necessary.

        Return False if the sequence itself was preempted.
        """
        fresh = self._blocks_for(sequence.computed + tokens) - sequence.lease.blocks
        while fresh > 0 and not self.kv.take(sequence.lease, fresh=fresh):
            victim = max(self.running, key=lambda candidate: candidate.rank)
            self._preempt(victim)
            plan.drop(victim)
            if victim is sequence:
                return False
        return True

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.kv.block_size)

    def _preempt(self, victim: Sequence) -> None:
        self.running.remove(victim)
        self.kv.release(victim.lease)
        victim.computed = 0
        self.preemptions += 1
        self.add(victim)

    def _start_waiting(self, plan: StepPlan) -> None:
        while self._fetched and plan.budget and len(self.running) < self._max_running:
            sequence = self._fetched.popleft()
            self.running.append(sequence)
            plan.add(sequence, 1)
        while self._heap and plan.budget and len(self.running) < self._max_running:
            sequence = self._heap[0][1]
            if not sequence.waiting:
                heapq.heappop(self._heap)
                continue
            tokens = self._begin(sequence, plan.budget)
            if not tokens:
                return  # the first sequence waits for blocks, and no other one overtakes it
            heapq.heappop(self._heap)
            sequence.waiting = False
            self.waiting_count -= 1
            if sequence.fetch is not None:
                self._fetching.add(sequence)
                sequence.fetch.grant(tokens)
            else:
                self.running.append(sequence)
                plan.add(sequence, tokens)

    def _begin(self, sequence: Sequence, budget: int) -> int:
        """Take the blocks of the first chunk.  Return the chunk's tokens, or 0 if the blocks are not free."""
        block = self.kv.block_size
        reusable = sequence.block_keys[: (len(sequence.tokens) - 1) // block]  # the last token is always computed
        hits = self.kv.cached_prefix(reusable)
        tokens = len(sequence.tokens) - hits * block
        if sequence.fetch is None:
            tokens = min(tokens, budget)  # a fetch takes all its blocks at once, and none of the budget
        fresh = self._blocks_for(hits * block + tokens) - hits
        if not self.kv.take(sequence.lease, fresh=fresh, cached=reusable[:hits]):
            return 0
        sequence.computed = hits * block
        if sequence.cached is None:  # a preempted sequence is not counted twice
            sequence.cached = hits * block
            self.prefix_queries_tokens += len(sequence.tokens)
            self.prefix_hits_tokens += hits * block
        return tokens

    def _count(self, plan: StepPlan) -> None:
        for sequence, tokens in plan.work.items():
            if tokens == 1 and sequence.computed >= sequence.prompt_tokens:
                plan.decode_tokens += 1
            else:
                plan.prefill_tokens += tokens

    def computed(self, sequence: Sequence, tokens: int) -> bool:
        """Note that a step computed ``tokens`` of a sequence.  Return True when a new token can be drawn."""
        before = sequence.computed
        sequence.computed = before + tokens
        if before < sequence.prompt_tokens:
            self._publish(sequence, before)
        return sequence.computed == len(sequence.tokens)

    def _publish(self, sequence: Sequence, before: int) -> None:
        block = self.kv.block_size
        keys = sequence.block_keys
        for index in range(before // block, min(sequence.computed // block, len(keys))):
            if self.kv.publish(sequence.lease, keys[index]) and sequence.request.sampling.cache_salt is None:
                stored = BlocksStored(
                    hashes=(keys[index],),
                    parent=keys[index - 1] if index else None,
                    token_ids=sequence.tokens[index * block : (index + 1) * block],
                    adapter=sequence.request.adapter or "",
                )
                self.kv.events.add(stored)
