"""Writes what the scheduler was asked and what became of it to a file that the simulator reads."""
