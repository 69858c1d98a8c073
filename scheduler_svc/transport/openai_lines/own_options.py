"""The control plane's own options of a request, in the body's object ``sage``."""

from __future__ import annotations

from sage.controlplane.v1 import common_pb2, inference_pb2
from scheduler_svc.transport.openai_lines.members import Members
from scheduler_svc.transport.violations import Violations

PRIORITIES = {
    name.removeprefix("PRIORITY_").lower(): value
    for name, value in common_pb2.Priority.items()
    if value != common_pb2.PRIORITY_UNSPECIFIED
}
RESUME_MODES = {
    name.removeprefix("RESUME_MODE_").lower(): value
    for name, value in inference_pb2.ResumeMode.items()
    if value != inference_pb2.RESUME_MODE_UNSPECIFIED
}


def take(body: Members, violations: Violations) -> Members:
    """Return the options of ``body``; none if it has none."""
    return Members(body.members("sage") or {}, violations, "sage.")


def fill_spec(spec: inference_pb2.GenerationSpec, own: Members) -> None:
    """Take the options of a request that generates."""
    spec.session = own.text("session")
    budget = own.number("cost_budget")
    if budget is not None:
        spec.cost_budget = budget
    mode = own.text("resume_mode").lower()
    if mode and mode not in RESUME_MODES:
        own.refuse("resume_mode", f"is none of {', '.join(RESUME_MODES)}")
    spec.resume_mode = RESUME_MODES.get(mode, inference_pb2.RESUME_MODE_UNSPECIFIED)


def fill_shared(wire: inference_pb2.GenerationSpec | inference_pb2.EmbedRequest, own: Members) -> None:
    """Take the options of every request, and refuse what is none."""
    wire.adapter = own.text("adapter")
    wire.preferred_instance = own.text("preferred_instance")
    priority = own.text("priority").lower()
    if priority and priority not in PRIORITIES:
        own.refuse("priority", f"is none of {', '.join(PRIORITIES)}")
    wire.priority = PRIORITIES.get(priority, common_pb2.PRIORITY_UNSPECIFIED)
    own.refuse_rest()
