"""Generators of traces: arrivals, lengths, sessions and shared system prompts, from a seeded source of randomness."""

from sage_simulator.traces.synthetic.arrivals import gamma_arrivals, on_off_arrivals, poisson_arrivals
from sage_simulator.traces.synthetic.independent import independent_requests
from sage_simulator.traces.synthetic.lengths import FixedLength, Lengths, LognormalLengths
from sage_simulator.traces.synthetic.poisson_trace import poisson_trace
from sage_simulator.traces.synthetic.sessions import SessionShape, multi_turn_sessions
from sage_simulator.traces.synthetic.tenants import Tenant

__all__ = [
    "FixedLength",
    "Lengths",
    "LognormalLengths",
    "SessionShape",
    "Tenant",
    "gamma_arrivals",
    "independent_requests",
    "multi_turn_sessions",
    "on_off_arrivals",
    "poisson_arrivals",
    "poisson_trace",
]
