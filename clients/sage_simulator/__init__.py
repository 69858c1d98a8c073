"""Simulates a fleet under the scheduler's own policies, in virtual time: nothing here opens a socket or a model."""
