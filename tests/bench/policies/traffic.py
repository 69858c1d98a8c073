"""The loads of the benchmark: recorded traces and synthetic bursts, at any rate and by any seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import read_trace, scale_to_rate
from sage_simulator.traces.classes import MIXES, RequestClass, with_classes
from sage_simulator.traces.synthetic.arrivals import on_off_arrivals
from sage_simulator.traces.synthetic.independent import independent_requests
from sage_simulator.traces.synthetic.lengths import Lengths, LognormalLengths
from sage_simulator.traces.synthetic.poisson_trace import OUTPUTS, PROMPTS
from sage_simulator.traces.transformations import repeat_to, requests_per_s

#: What requests state, by name: five classes with targets of their own, or the same targets for all.
TARGETS: Mapping[str, Sequence[RequestClass]] = {
    "mixed": MIXES["mixed"],
    "equal": (RequestClass(weight=1, ttft_target_s=2.0, tpot_target_s=0.033),),
}

_ON, _OFF = 2.5, 0.5  # rates of bursts and of the time between, by the mean rate
_MEAN_ON_S, _MEAN_OFF_S = 5.0, 15.0
_SAMPLE = 2_000  # requests that the mean lengths of a synthetic load are taken from


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """One kind of load."""

    name: str
    path: Path | None = None  # of a recorded trace; None: synthetic
    prompts: Lengths = PROMPTS  # of a synthetic one
    outputs: Lengths = OUTPUTS
    ttft_scale: float = 1.0  # factor of every TTFT target: long prompts need longer
    tpot_scale: float = 1.0

    @property
    def bursty(self) -> bool:
        """Whether arrivals come in bursts that this module makes."""
        return self.path is None

    def sample(self) -> Sequence[TracedRequest]:
        """Return requests with the load's lengths, at some rate."""
        return _recorded(self.path) if self.path is not None else self._burst(random.Random(0), 1.0, _SAMPLE)

    def trace(self, *, rate: float, duration_s: float, seed: int, targets: str) -> list[TracedRequest]:
        """Make a trace of about this mean rate, in requests per second.

        A seed chooses where a recorded trace begins, the classes, and everything of a synthetic one.  A recorded trace
        goes on from its beginning when it ends; the traces of one seed at two rates begin with the same requests.
        """
        rng = random.Random(f"{self.name}/{seed}")
        count = max(2, round(rate * duration_s))
        trace = self._part(rng, rate, count) if self.path is not None else self._burst(rng, rate, count)
        trace = with_classes(trace, random.Random(f"classes/{seed}"), TARGETS[targets])
        return [self._scaled(each) for each in trace]

    def _part(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        assert self.path is not None, "the load is recorded"
        recorded = _recorded(self.path)
        first = rng.randrange(len(recorded))
        begin_s = recorded[first].arrival_s
        turned = [replace(each, arrival_s=each.arrival_s - begin_s) for each in recorded[first:]]
        again_s = recorded[-1].arrival_s - begin_s + 1 / requests_per_s(recorded)
        turned += [replace(each, arrival_s=each.arrival_s + again_s) for each in recorded[:first]]
        return scale_to_rate(repeat_to(turned, count), rate)

    def _burst(self, rng: random.Random, rate: float, count: int) -> list[TracedRequest]:
        arrivals = on_off_arrivals(
            rng,
            on_requests_per_s=_ON * rate,
            off_requests_per_s=_OFF * rate,
            mean_on_s=_MEAN_ON_S,
            mean_off_s=_MEAN_OFF_S,
        )
        return independent_requests(rng, arrivals, count, prompts=self.prompts, outputs=self.outputs)

    def _scaled(self, request: TracedRequest) -> TracedRequest:
        ttft_s, tpot_s = request.ttft_target_s, request.tpot_target_s
        return replace(
            request,
            ttft_target_s=ttft_s * self.ttft_scale if ttft_s is not None else None,
            tpot_target_s=tpot_s * self.tpot_scale if tpot_s is not None else None,
        )


@lru_cache(maxsize=8)
def _recorded(path: Path) -> Sequence[TracedRequest]:
    return read_trace(path)


#: Synthetic loads by name: people who chat, and programs that send much and ask for little.
SYNTHETIC: Mapping[str, Traffic] = {
    "bursty_chat": Traffic(name="bursty_chat"),
    "bursty_code": Traffic(
        name="bursty_code",
        prompts=LognormalLengths(median=1_500, sigma=0.8, most=16_384),
        outputs=LognormalLengths(median=20, sigma=0.8, most=512),
        tpot_scale=3.0,
    ),
}

#: Recorded loads by name: the file, and factors of the targets.  The second one's prompts have 15,000 tokens.
RECORDED: Mapping[str, tuple[str, float, float]] = {
    "azure_conv": ("azure_llm_2023_conv.csv", 1.0, 1.0),
    "mooncake": ("mooncake_synthetic.jsonl", 5.0, 3.0),
}

#: The recorded load whose prompts share long prefixes.
SHARES_PREFIXES = "mooncake"


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
    return Traffic(name=Path(name).stem, path=path, ttft_scale=ttft_scale, tpot_scale=tpot_scale)
