"""Traces of requests: read from files, made by generators, transformed."""

from sage_simulator.traces.classes import DEFAULT_MIX, MIXES, RequestClass, with_classes
from sage_simulator.traces.formats import FORMATS, TraceFormat, read_trace
from sage_simulator.traces.own_format import dump, load
from sage_simulator.traces.trace_error import TraceError
from sage_simulator.traces.transformations import (
    repeat_to,
    requests_per_s,
    scale_time,
    scale_to_rate,
    truncate_prompts,
    window,
    with_cancels,
    with_default_targets,
    with_models,
)

__all__ = [
    "DEFAULT_MIX",
    "FORMATS",
    "MIXES",
    "RequestClass",
    "TraceError",
    "TraceFormat",
    "dump",
    "load",
    "read_trace",
    "repeat_to",
    "requests_per_s",
    "scale_time",
    "scale_to_rate",
    "truncate_prompts",
    "window",
    "with_cancels",
    "with_classes",
    "with_default_targets",
    "with_models",
]
