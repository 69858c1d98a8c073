"""One place lists every instrument, span and attribute, and says it in a form that holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sage_telemetry import catalogue
from sage_telemetry.catalogue import (
    ATTRIBUTES,
    BOTH,
    EVENTS,
    EVENTS_OF,
    EXECUTOR,
    GEN_AI,
    LINKS_OF,
    OF_LOG_RECORDS,
    SCHEDULER,
    SPANS,
    markdown,
)
from sage_telemetry.instrument import Instrument, Kind

ROOT = Path(__file__).resolve().parents[3]
EVERY = (*BOTH, *SCHEDULER, *EXECUTOR)


def test_names_are_unique_under_both_conventions() -> None:
    assert len({each.name for each in EVERY}) == len(EVERY)
    assert len({each.prometheus_name for each in EVERY}) == len(EVERY)


@pytest.mark.parametrize("instrument", EVERY, ids=lambda each: each.name)
def test_an_instrument_follows_the_conventions(instrument: Instrument) -> None:
    assert re.fullmatch(r"sage(\.[a-z][a-z_]*)+", instrument.name)
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in instrument.labels)
    assert "le" not in instrument.labels
    assert instrument.help.endswith(".")
    assert instrument.kind is not Kind.HISTOGRAM or instrument.unit in ("s", "1")
    assert not instrument.name.endswith(("total", "count", "sum", "bucket", "created"))


@pytest.mark.parametrize("instrument", EVERY, ids=lambda each: each.name)
def test_each_label_says_which_values_it_can_have(instrument: Instrument) -> None:
    assert all(instrument.labels.values())
    assert not {"request_id", "session", "user"} & instrument.labels.keys()
    assert instrument.labels.get("tenant") in (None, catalogue.TENANT["tenant"])  # callers may name any number


def test_the_readme_holds_the_catalogue_as_it_is() -> None:
    readme = (ROOT / "protos" / "sage_telemetry" / "CATALOGUE.md").read_text()
    assert readme == markdown() + "\n", "run: python -m sage_telemetry.catalogue > protos/sage_telemetry/CATALOGUE.md"


def test_no_code_names_an_attribute_that_is_not_listed() -> None:
    named: set[str] = set()
    for room in ("scheduler_svc/telemetry", "executor_svc/telemetry"):
        for path in (ROOT / room).glob("*.py"):
            named |= set(re.findall(r'^\s+"((?:sage|gen_ai)\.[a-z_.]+)":', path.read_text(), re.MULTILINE))
    assert len(named) > 40
    assert named - ATTRIBUTES.keys() - OF_LOG_RECORDS.keys() - GEN_AI.keys() == set()


def test_events_and_links_are_of_spans_that_are_listed() -> None:
    assert EVENTS_OF.keys() | LINKS_OF.keys() <= SPANS.keys()
    assert {event for events in EVENTS_OF.values() for event in events} == EVENTS.keys()


def test_buckets_ascend_or_the_instrument_is_refused() -> None:
    with pytest.raises(ValueError, match="not ascending"):
        Instrument(name="sage.x", kind=Kind.HISTOGRAM, unit="s", help="X.", buckets=(2, 1))
    with pytest.raises(ValueError, match="has buckets"):
        Instrument(name="sage.x", kind=Kind.COUNTER, unit="s", help="X.", buckets=(1,))


def test_an_instrument_that_nothing_could_count_is_refused() -> None:
    with pytest.raises(ValueError, match="a gauge is observed"):
        Instrument(name="sage.x", kind=Kind.GAUGE, unit="s", help="X.")
    with pytest.raises(ValueError, match="counted, not observed"):
        Instrument(name="sage.x", kind=Kind.HISTOGRAM, unit="s", help="X.", buckets=(1,), observed=True)
    with pytest.raises(ValueError, match="without labels is weighted"):
        Instrument(
            name="sage.x", kind=Kind.HISTOGRAM, unit="s", help="X.", buckets=(1,), labels={"of": "x"}, weighted=True
        )
