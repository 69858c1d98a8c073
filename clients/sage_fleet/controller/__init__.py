"""Gives groups as many executors as the scheduler says are needed."""
