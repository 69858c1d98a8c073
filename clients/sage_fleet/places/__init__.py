"""The places that a fleet may run on: their port, what they report, and what a change of a fleet does."""
