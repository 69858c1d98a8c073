"""Starts, supervises and stops a scheduler and executors on one machine.  Start at ``up``, then ``supervisor``."""
