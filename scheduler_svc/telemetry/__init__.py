"""Metrics and traces of the scheduler, and its log lines."""
