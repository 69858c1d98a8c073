"""Runs a scheduler and executors on one machine (``sagectl up``), and demonstrations on them (``sagectl demo``)."""
