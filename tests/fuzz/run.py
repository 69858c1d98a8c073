"""How much a run sends, with which seed, and how to repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.fuzzer import Fuzzer

SCHEDULER_SHARE = 0.8  # of the messages; the executor gets the others


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    seed: int
    messages: int  # in both directions together
    only: tuple[int, ...] = ()  # the numbers of the only calls to make; empty: all

    @property
    def for_scheduler(self) -> int:
        return round(self.messages * SCHEDULER_SHARE)

    @property
    def for_executor(self) -> int:
        return self.messages - self.for_scheduler

    @property
    def meets_every_rpc(self) -> bool:
        """Whether so many messages are sent that each RPC gets some."""
        return not self.only and self.messages >= 1_000

    @property
    def how_to_repeat(self) -> str:
        """What to type to get the same messages again."""
        return (
            f"repeat with SAGE_FUZZ_SEED={self.seed} SAGE_FUZZ_MESSAGES={self.messages}, or one call alone with"
            " SAGE_FUZZ_ONLY and the number of its case"
        )

    def report(self, fuzzer: Fuzzer, more: str) -> None:
        """Print what was sent and how it was answered; pytest shows it with -s and where a test fails."""
        print(f"\nseed {self.seed}; {fuzzer.messages.total()} messages; {more}; {self.how_to_repeat}")
        for path, count in fuzzer.messages.most_common():
            print(f"{count:7} {path}")
        for method, statuses in sorted(fuzzer.findings.statuses.items()):
            print(f"{method}:", ", ".join(f"{code} {count}" for code, count in statuses.most_common()))
        print("\n\n".join(fuzzer.findings.told))
