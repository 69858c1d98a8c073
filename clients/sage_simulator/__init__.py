"""Replays traces of requests through the scheduler's own decisions, in virtual time, on modelled engines."""
