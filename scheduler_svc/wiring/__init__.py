"""Builds the scheduler's objects from its configuration, starts them and ends them."""
