"""The loads of the benchmark: recorded traces and synthetic ones, at any rate and by any seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from sage_simulator.fleet_capacity import RequestMix
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import read_trace, scale_to_rate
from sage_simulator.traces.classes import MIXES, RequestClass, with_classes
from sage_simulator.traces.synthetic.lengths import LognormalLengths
from sage_simulator.traces.synthetic.poisson_trace import OUTPUTS, PROMPTS
from sage_simulator.traces.transformations import repeat_to, requests_per_s
from tests.bench.policies.synthetic_loads import Bursts, Documents, Sessions, Shift, Steady, SyntheticLoad

#: What requests state, by name: five classes with targets of their own, five with the same targets, or classes alone.
TARGETS: Mapping[str, Sequence[RequestClass]] = {
    "mixed": MIXES["mixed"],
    "equal": tuple(replace(each, ttft_target_s=2.0, tpot_target_s=0.033) for each in MIXES["mixed"]),
    "default": MIXES["untargeted"],
}

_SAMPLE = 2_000  # requests that the mean lengths of a synthetic load are taken from


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """One kind of load."""

    name: str
    source: Recording | SyntheticLoad
    ttft_scale: float = 1.0  # factor of every TTFT target: long prompts need longer
    tpot_scale: float = 1.0

    def mix(self) -> RequestMix:
        """Return the means of the load's requests; those of a synthetic one are taken from a sample."""
        return _mix(self)

    def trace(self, *, rate: float, duration_s: float, seed: int, targets: str) -> list[TracedRequest]:
        """Make a trace of about this mean rate, in requests per second.

        A seed chooses where a recorded trace begins, the classes, and everything of a synthetic one.  A recorded trace
        goes on from its beginning when it ends; the traces of one seed at two rates begin with the same requests.
        """
        rng = random.Random(f"{self.name}/{seed}")
        count = max(2, round(rate * duration_s))
        classes = [self._scaled(each) for each in TARGETS[targets]]
        return with_classes(self.source.trace(rng, rate, count), random.Random(f"classes/{seed}"), classes)

    def _scaled(self, given: RequestClass) -> RequestClass:
        ttft_s, tpot_s = given.ttft_target_s, given.tpot_target_s
        return replace(
            given,
            ttft_target_s=ttft_s * self.ttft_scale if ttft_s is not None else None,
            tpot_target_s=tpot_s * self.tpot_scale if tpot_s is not None else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A recorded trace."""

    path: Path

    @property
    def requests(self) -> Sequence[TracedRequest]:
        """All of it, as it was recorded."""
        return _recorded(self.path)

    def trace(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        """Replay it at a mean rate, from a random place on and from its beginning when it ends."""
        recorded = self.requests
        first = rng.randrange(len(recorded))
        begin_s = recorded[first].arrival_s
        turned = [replace(each, arrival_s=each.arrival_s - begin_s) for each in recorded[first : first + count]]
        again_s = recorded[-1].arrival_s - begin_s + 1 / requests_per_s(recorded)
        left = max(0, count - len(turned))
        turned += [replace(each, arrival_s=each.arrival_s + again_s) for each in recorded[:first][:left]]
        return scale_to_rate(repeat_to(turned, count), rate)


@lru_cache(maxsize=8)
def _recorded(path: Path) -> Sequence[TracedRequest]:
    return read_trace(path)


@lru_cache(maxsize=64)
def _mix(traffic: Traffic) -> RequestMix:
    source = traffic.source
    return RequestMix.of(
        source.requests if isinstance(source, Recording) else source.trace(random.Random(0), 1.0, _SAMPLE)
    )


#: Lengths of people who chat, and of programs that send much and ask for little.
_CHAT = Steady(
    prompts=LognormalLengths(median=400, sigma=1.1, most=8_192),
    outputs=LognormalLengths(median=250, sigma=0.6, most=2_048),
)
_CODE = Steady(
    prompts=LognormalLengths(median=1_500, sigma=0.8, most=16_384),
    outputs=LognormalLengths(median=20, sigma=0.8, most=512),
)

#: Synthetic loads by name.
SYNTHETIC: Mapping[str, Traffic] = {
    each.name: each
    for each in (
        Traffic(name="bursty_chat", source=Bursts(prompts=PROMPTS, outputs=OUTPUTS)),
        Traffic(
            name="bursty_code",
            source=Bursts(prompts=_CODE.prompts, outputs=_CODE.outputs),
            tpot_scale=3.0,
        ),
        Traffic(name="steady_chat", source=_CHAT),
        # A prompt and answer of chat takes an engine two thirds of the time that one of code does: as much arrives.
        Traffic(name="chat_then_code", source=Shift(before=_CHAT, after=_CODE, before_rate=1.5), tpot_scale=3.0),
        Traffic(
            name="uneven_mix",
            source=Steady(
                variation=2.5,
                prompts=LognormalLengths(median=1_000, sigma=1.3, most=16_384),
                outputs=LognormalLengths(median=90, sigma=1.0, most=2_048),
            ),
            tpot_scale=2.0,
        ),
        # A quarter of the documents' prompts is new: many callers ask short things of the same long texts.
        Traffic(
            name="documents",
            source=Documents(
                questions=LognormalLengths(median=1_200, sigma=1.0, most=8_192),
                outputs=LognormalLengths(median=180, sigma=0.6, most=1_024),
            ),
            ttft_scale=3.0,
            tpot_scale=3.0,
        ),
        Traffic(
            name="sessions",
            source=Sessions(
                texts=LognormalLengths(median=700, sigma=0.9, most=8_192),
                outputs=LognormalLengths(median=200, sigma=0.6, most=1_024),
            ),
            ttft_scale=2.0,
            tpot_scale=2.0,
        ),
    )
}

#: Loads that come in bursts, where order and giving up early decide.
BURSTY = ("bursty_chat", "bursty_code")

#: Recorded loads by name: the file, and factors of the targets.  The second one's prompts have 15,000 tokens.
RECORDED: Mapping[str, tuple[str, float, float]] = {
    "azure_conv": ("azure_llm_2023_conv.csv", 1.0, 1.0),
    "mooncake": ("mooncake_synthetic.jsonl", 5.0, 3.0),
}

#: The loads whose prompts share long prefixes; of the last one, each prompt is the conversation before it.
MOONCAKE, SESSIONS = "mooncake", "sessions"
SHARES_PREFIXES = (MOONCAKE, "documents", SESSIONS)


def find_traffic(name: str, directory: Path | None) -> Traffic:
    """Return a load by its name, or the recorded trace at a path.

    ``directory``: where the recorded traces are.  Raises FileNotFoundError, which says what is missing.
    """
    if name in SYNTHETIC:
        return SYNTHETIC[name]
    file, ttft_scale, tpot_scale = RECORDED.get(name, (name, 1.0, 1.0))
    if name in RECORDED and directory is None:
        raise FileNotFoundError(f"the load {name} needs {file}: say with --traces in which directory it is")
    path = (directory / file if directory is not None and name in RECORDED else Path(file)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"the load {name} needs {path}, which is not there")
    return Traffic(name=Path(name).stem, source=Recording(path=path), ttft_scale=ttft_scale, tpot_scale=tpot_scale)
