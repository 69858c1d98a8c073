"""Runs a scheduler and executors on one machine, and demonstrations on them; ``sagectl up`` and ``sagectl demo``."""
