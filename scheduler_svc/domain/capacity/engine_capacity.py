"""How much an instance's engine holds, and how fast it is."""

from __future__ import annotations

from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.prediction.pace import CPU_PRIOR, Pace

#: Largest share of engine time that prefill is expected to take: output tokens get the rest.
_MOST_PREFILL = 0.9
#: An eighth of a step's tokens, at least, is expected to go to prompts: sequences end all the time.
_LEAST_FOR_PROMPTS = 8
#: Steps of the engine that prompts are sent ahead for: the one that runs and the next, so that it never runs dry.
_CHUNKS_AHEAD = 2
#: Seconds from a step's end until the next prompt is there: its output, a scheduling pass and the Assign travel.
ROUND_TRIP_S = 0.05


class EngineCapacity:
    """What an instance's engine can do at most, and what one of its steps is predicted to take now.

    A step is one iteration of the engine.
    """

    __slots__ = (
        "_learned_pace",
        "alone_delay_s",
        "behind_delay_s",
        "block",
        "capacity",
        "chunk",
        "chunk_s",
        "computed_token_s",
        "decode_share",
        "decode_token_s",
        "facts",
        "first_token_margin",
        "instance_id",
        "is_tried",
        "load_pace",
        "lone_token_s",
        "lookahead",
        "max_model_len",
        "max_running",
        "output_kv_token_s",
        "output_token_s",
        "pace",
        "prefill_limit_s",
        "prefill_token_s",
        "price_per_s",
        "token_margin",
        "uncached_share",
    )

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.facts: EngineFacts | None = None
        self.max_running = 0  # sequences
        self.lookahead = 0  # sequences beyond max_running that may queue at the engine
        self.chunk = 0  # tokens of one step
        self.capacity = 0  # KV tokens
        self.block = 1  # tokens
        self.max_model_len = 0  # tokens
        self.price_per_s = 0.0
        # how fast it is
        self.pace: Pace = CPU_PRIOR
        self.load_pace: Pace = CPU_PRIOR  # that tells how much of the offered load the instance carries
        self._learned_pace: Pace | None = None  # while ``pace`` is a faded one
        self.is_tried = False  # the pace is the engine's own, not a prior or that of another one
        self.first_token_margin = self.token_margin = 1.0  # factors, as in ``Margins``
        self.alone_delay_s = self.behind_delay_s = 0.0  # as in ``Margins``
        self.uncached_share = 1.0  # of prompt tokens
        # what a step is predicted to take
        self.lone_token_s = 0.0  # seconds per output token of a sequence beside which nothing runs; its KV tokens add
        self.decode_token_s = 0.0  # seconds of a step without prompt tokens
        self.chunk_s = 0.0  # seconds of a step that is full of prompt tokens
        self.computed_token_s = 0.0  # seconds until the first token, per prompt token that is not cached
        self.prefill_token_s = 0.0  # the same, per prompt token of which that is not known
        self.prefill_limit_s = 0.0  # once so much prefill is ahead, the next prompt waits in the scheduler
        self.decode_share = 1.0  # of the engine's time, what prompts leave for output tokens
        self.output_token_s = 0.0  # seconds per output token, beside the prefill that comes meanwhile
        self.output_kv_token_s = 0.0  # what each KV token of its sequence adds to that

    def prefill_s(self, prompt_tokens: int, cached_tokens: int | None) -> float:
        """Predict seconds of prefill of a prompt.  ``cached_tokens``: of it, those that the cache holds, if known."""
        return self.computed_token_s * self._computed_tokens(prompt_tokens, cached_tokens)

    def _computed_tokens(self, prompt_tokens: int, cached_tokens: int | None) -> float:
        """Predict how many tokens of a prompt the engine computes: those that its cache does not hold."""
        if cached_tokens is None:
            return prompt_tokens * self.uncached_share
        return prompt_tokens - cached_tokens

    def _alone_token_s(self, prompt_tokens: int) -> float:
        """Predict seconds per output token behind a prompt if nothing else ran here."""
        return self.lone_token_s + self.pace.kv_token_s * prompt_tokens

    def _count_step(self, live: int, pending: int, used_tokens: int, prefill_rate: float) -> None:
        """Predict a step once one more sequence is there, and what a token costs then.

        Beside it are ``live`` sequences, of which ``pending`` have no token yet, with ``used_tokens`` KV tokens.
        ``prefill_rate``: seconds of prefill that come per second.
        """
        max_running, pace = self.max_running, self.pace
        running = live + 1 if live < max_running else max_running
        self.lone_token_s = pace.base_s + pace.running_s
        step_s = self.decode_token_s = pace.base_s + pace.running_s * running + pace.kv_token_s * used_tokens
        # A step that computes a chunk of prompts also computes a token of each sequence.  These come first: prompts get
        # what they leave of the step's tokens.
        decoding = live - pending
        if decoding > max_running:
            decoding = max_running
        chunk, least = self.chunk, self.chunk // _LEAST_FOR_PROMPTS or 1
        if decoding > 0:
            chunk -= decoding
        if chunk < least:
            chunk = least
        chunk_s = self.chunk_s = pace.prefill_token_s * chunk + step_s
        self.computed_token_s = chunk_s / chunk
        self.prefill_token_s = self.computed_token_s * self.uncached_share
        self.prefill_limit_s = chunk_s * _CHUNKS_AHEAD if chunk_s > ROUND_TRIP_S else chunk_s + ROUND_TRIP_S
        # Prompts that come later share the steps: of each second, output tokens get what prefill leaves.
        left = self.decode_share = 1 - (prefill_rate if prefill_rate < _MOST_PREFILL else _MOST_PREFILL)
        self.output_token_s = step_s / left
        self.output_kv_token_s = pace.kv_token_s / left
